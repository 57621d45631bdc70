// Save a message and read its room: go run ./example [DATA_DIR]
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
	if err := run(context.Background(), dataDir); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dataDir string) error {
	client, err := backscroll.Open(ctx, dataDir, nil) // starts a daemon if none serves the directory
	if err != nil {
		return err
	}
	defer client.Close()
	message := backscroll.MessageInput{ID: "m1", RoomID: "home", SenderID: "ada", Content: "Hello!", Timestamp: time.Now().UnixMilli()}
	if err := client.SaveMessage(ctx, backscroll.SaveMessage{Message: message}); err != nil {
		return err
	}
	reaction := backscroll.ReactionInput{MessageID: "m1", OderID: "bo", Emoji: "👋"}
	if err := client.SaveReaction(ctx, backscroll.SaveReaction{Reaction: reaction}); err != nil {
		return err
	}
	page, err := client.GetMessagePage(ctx, backscroll.GetMessagePage{RoomID: "home", Limit: 50})
	if err != nil {
		return err
	}
	for _, message := range page.Messages {
		fmt.Printf("%s: %s", message.SenderID, message.Content)
		for _, reaction := range message.Reactions {
			fmt.Printf(" %s", reaction.Emoji)
		}
		fmt.Println()
	}
	return nil
}
