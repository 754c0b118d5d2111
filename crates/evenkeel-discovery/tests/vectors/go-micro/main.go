// Prints entries as go-micro's own code writes and reads them.
package main

import (
	"encoding/json"
	"os"
	"sort"
	"strings"

	"github.com/micro/go-micro/consul"
	"github.com/micro/go-micro/registry"
)

type written struct {
	Metadata map[string]string `json:"metadata"`
	Version  string            `json:"version"`
	Tags     []string          `json:"tags"`
}

type stored struct {
	Service *registry.Service `json:"service"`
	Value   string            `json:"value"`
}

func entry(version string, pairs ...string) written {
	metadata := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		metadata[pairs[i]] = pairs[i+1]
	}
	// go-micro ranges over a map: the order of its tags is any. Here it is that of the keys.
	keys := []string{}
	for key := range metadata {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	tags := []string{}
	for _, key := range keys {
		tags = append(tags, consul.Metadata(map[string]string{key: metadata[key]})...)
	}
	return written{metadata, version, append(tags, consul.Version(version)...)}
}

func reading(tags ...string) written {
	version, _ := consul.ReadVersion(tags)
	return written{consul.ReadMetadata(tags), version, tags}
}

func value(service *registry.Service) stored {
	text, err := json.Marshal(service)
	if err != nil {
		panic(err)
	}
	return stored{service, string(text)}
}

func main() {
	endpoints := consul.Endpoints([]*registry.Endpoint{{
		Name:     "Greeter.Hello",
		Request:  &registry.Value{Name: "Request", Type: "Request", Values: []*registry.Value{{Name: "name", Type: "string"}}},
		Response: &registry.Value{Name: "Response", Type: "Response"},
		Metadata: map[string]string{"stream": "false"},
	}})
	hello := entry("2.4.1", "protocol", "grpc").Tags
	out := map[string]interface{}{
		"consul": []written{
			entry("latest"),
			entry(""),
			entry("2.4.1", "protocol", "grpc"),
			entry("latest", "broker", "http", "protocol", "grpc", "registry", "consul", "server", "grpc", "transport", "grpc"),
			entry("latest", "registry", "registry"),
			entry("latest", "zone", "eu-1a", "weight", "10"),
			entry("latest", "", ""),
			entry("latest", "html", "<a href=\"x\">&amp;</a>", "lines", "\u2028\u2029\n\t"),
			entry("latest", "kurz", "Grüße aus Köln", "emoji", "🙂🙂🙂🙂"),
			entry("latest", "repeated", strings.Repeat("ab1", 90)),
			entry("latest", "one", strings.Repeat("a", 600)),
			entry("latest", "lazy", "abcd bcdefgh abcdefgh"),
			entry("latest", "url", "http://10.0.0.1:8080/health?next=http://10.0.0.1:8080/health"),
			entry("latest", "binary", string([]byte{1, 2, 127}), "cyrillic", "ЖЖЖЖЖЖЖЖЖЖЖЖ"),
		},
		"read": []written{
			reading(append(append([]string{}, endpoints...), hello...)...),
			reading(`t={"protocol":"grpc"}`, `t={"zone":"a","weight":"3"}`, `e={"name":"Greeter.Hello"}`, "v=1.0.0"),
			reading(append([]string{`t={"protocol":"mucp"}`}, hello...)...),
			reading(append(append([]string{}, hello...), `t={"protocol":"mucp"}`, "v=9")...),
			reading("t-zz", "t-00", "v-zz", hello[0]),
			reading("t=garbage", "t={}", "t=null", `t={"a":7}`),
			reading("web", "primary", "canary"),
		},
		"etcd": []stored{
			value(&registry.Service{Name: "greeter", Version: "latest", Nodes: []*registry.Node{{Id: "greeter-1", Address: "10.0.0.1:8080", Metadata: map[string]string{"protocol": "grpc", "zone": "eu", "<b>": "&"}}}}),
			value(&registry.Service{Name: "go.micro.api", Version: "1.2", Nodes: []*registry.Node{{Id: "a/b", Address: "[2001:db8::1]:80", Metadata: map[string]string{}}}}),
		},
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(out); err != nil {
		panic(err)
	}
}
