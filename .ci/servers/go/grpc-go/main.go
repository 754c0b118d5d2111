// A caller over grpc-go with its DNS resolver and round robin, all else by its defaults: an open loop of
// unary calls at random times, each with two seconds to live. It goes on until its standard input ends,
// and then prints how many calls it made and how many of them failed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"math/rand"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

const roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// Seen is what callers saw.
type Seen struct {
	Version string `json:"version"`
	Calls   int    `json:"calls"`
	Errors  int    `json:"errors"`
	First   string `json:"first_error"`
	// Last is when the last call that failed began, in the time of day.
	Last int64 `json:"last_error_nanos"`
}

func main() {
	target := flag.String("target", "", "what to resolve, such as dns://127.0.0.1:5353/web.example.test:8000")
	rate := flag.Float64("rate", 200, "calls a second")
	flag.Parse()

	connection, err := grpc.NewClient(*target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(roundRobin))
	if err != nil {
		log.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()

	seen := Seen{Version: grpc.Version}
	var lock sync.Mutex
	var underWay sync.WaitGroup
	next := time.Now()
	for {
		next = next.Add(time.Duration(rand.ExpFloat64() / *rate * float64(time.Second)))
		select {
		case <-over:
			underWay.Wait()
			_ = json.NewEncoder(os.Stdout).Encode(seen)
			return
		case <-time.After(time.Until(next)):
		}
		underWay.Add(1)
		go func() {
			defer underWay.Done()
			began := time.Now().UnixNano()
			deadline, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			err := connection.Invoke(deadline, "/propagation.Web/Get", &emptypb.Empty{}, &emptypb.Empty{})
			lock.Lock()
			defer lock.Unlock()
			seen.Calls++
			if err != nil {
				if seen.Errors == 0 {
					seen.First = err.Error()
				}
				seen.Errors++
				seen.Last = max(seen.Last, began)
			}
		}()
	}
}
