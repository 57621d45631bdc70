// The driver of the benchmark and of the tests with clients in several languages: driver ENDPOINT.
//
// Each line of standard input is an order, a JSON object; so is the answer to it, on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"backscroll"
)

const timeout = time.Minute

// order is what to do: load the work of a file, ping so often, or save or read with so many requests in flight.
type order struct {
	Do       string `json:"do"`
	Path     string `json:"path"`
	Count    int    `json:"count"`
	InFlight int    `json:"inFlight"`
}

// work has the messages to save, and the rooms to read in the order of visits.
type work struct {
	Messages []backscroll.MessageInput `json:"messages"`
	Visits   []string                  `json:"visits"`
	Rooms    []string                  `json:"rooms"`
}

type driver struct {
	client *backscroll.Client
	work   work
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: driver ENDPOINT")
	}
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(endpoint string, input io.Reader, output io.Writer) error {
	client, err := backscroll.New(&backscroll.Options{Endpoint: endpoint, Timeout: timeout})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	driver := &driver{client: client}
	orders, answers := json.NewDecoder(bufio.NewReader(input)), json.NewEncoder(output)
	answers.SetEscapeHTML(false)
	for {
		var next order
		if err := orders.Decode(&next); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := driver.execute(next)
		if err != nil {
			return err
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

func (d *driver) execute(next order) (any, error) {
	ctx := context.Background()
	switch next.Do {
	case "load":
		return struct{}{}, d.load(next.Path)
	case "ping":
		return timed(1, next.Count, func(int) error {
			_, err := d.client.Ping(ctx, backscroll.Ping{})
			return err
		})
	case "save":
		return timed(next.InFlight, len(d.work.Messages), func(index int) error {
			return d.client.SaveMessage(ctx, backscroll.SaveMessage{Message: d.work.Messages[index]})
		})
	case "read":
		return timed(next.InFlight, len(d.work.Visits), func(index int) error {
			_, err := d.newest(ctx, d.work.Visits[index])
			return err
		})
	case "readBack":
		return d.readBack(ctx)
	default:
		return nil, fmt.Errorf("unknown order %q", next.Do)
	}
}

func (d *driver) load(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d.work = work{}
	return json.Unmarshal(text, &d.work)
}

func (d *driver) newest(ctx context.Context, roomID string) (*backscroll.MessagePage, error) {
	return d.client.GetMessagePage(ctx, backscroll.GetMessagePage{RoomID: roomID, Limit: 50})
}

func (d *driver) readBack(ctx context.Context) (any, error) {
	pages := make([][]backscroll.Message, 0, len(d.work.Rooms))
	for _, roomID := range d.work.Rooms {
		page, err := d.newest(ctx, roomID)
		if err != nil {
			return nil, err
		}
		pages = append(pages, page.Messages)
	}
	return map[string]any{"pages": pages}, nil
}

// timed returns how long it takes to ask for all items with so many of them in flight.
func timed(inFlight, count int, ask func(index int) error) (any, error) {
	var next atomic.Int64
	var asking sync.WaitGroup
	errs := make([]error, inFlight)
	started := time.Now()
	for worker := range inFlight {
		asking.Add(1)
		go func() {
			defer asking.Done()
			for index := int(next.Add(1)) - 1; index < count && errs[worker] == nil; index = int(next.Add(1)) - 1 {
				errs[worker] = ask(index)
			}
		}()
	}
	asking.Wait()
	return map[string]float64{"seconds": time.Since(started).Seconds()}, errors.Join(errs...)
}
