// Finds the instances of a service by go-kit's DNS discovery: each line of its input is answered by a line with those
// that its round robin gave in two hundred calls, sorted, and how often.
//
//	go-kit-client 127.0.0.1:8600 web.service.consul.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/log"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/dnssrv"
	"github.com/go-kit/kit/sd/lb"
)

const calls = 200

func main() {
	server, name := os.Args[1], os.Args[2]
	resolver := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server)
		},
	}
	lookup := func(_, _, name string) (string, []*net.SRV, error) {
		return resolver.LookupSRV(context.Background(), "", "", name)
	}
	every := time.NewTicker(100 * time.Millisecond)
	instancer := dnssrv.NewInstancerDetailed(name, every, lookup, log.NewNopLogger())
	factory := func(instance string) (endpoint.Endpoint, io.Closer, error) {
		answer := func(context.Context, interface{}) (interface{}, error) { return instance, nil }
		return answer, nil, nil
	}
	balancer := lb.NewRoundRobin(sd.NewEndpointer(instancer, factory, log.NewNopLogger()))

	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		fmt.Println(strings.Join(ask(balancer), " "))
	}
}

func ask(balancer lb.Balancer) []string {
	seen := map[string]int{}
	for i := 0; i < calls; i++ {
		call, err := balancer.Endpoint()
		if err != nil {
			return nil
		}
		instance, _ := call(context.Background(), nil)
		seen[instance.(string)]++
	}
	all := []string{}
	for instance, times := range seen {
		all = append(all, fmt.Sprintf("%s=%d", instance, times))
	}
	sort.Strings(all)
	return all
}
