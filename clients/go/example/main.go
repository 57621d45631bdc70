// Save a message and read its room: go run . [DATA_DIR]
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"backscroll"
)

func main() {
	dataDir := "./data"
	if len(os.Args) > 1 {
		dataDir = os.Args[1]
	}
	ctx := context.Background()
	client, err := backscroll.Open(ctx, dataDir, nil) // starts a daemon if none serves the directory
	check(err)
	defer client.Close()
	message := backscroll.MessageInput{
		ID: "m1", RoomID: "home", SenderID: "ada", Content: "Hello!", Timestamp: time.Now().UnixMilli(),
	}
	check(client.SaveMessage(ctx, backscroll.SaveMessage{Message: message}))
	reaction := backscroll.ReactionInput{MessageID: "m1", OderID: "bo", Emoji: "👋"}
	check(client.SaveReaction(ctx, backscroll.SaveReaction{Reaction: reaction}))
	page, err := client.GetMessagePage(ctx, backscroll.GetMessagePage{RoomID: "home", Limit: 50})
	check(err)
	for _, message := range page.Messages {
		fmt.Printf("%s: %s", message.SenderID, message.Content)
		for _, reaction := range message.Reactions {
			fmt.Printf(" %s", reaction.Emoji)
		}
		fmt.Println()
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
