package consul

// What go-micro's package keeps to itself, for the program that writes the vectors.

import "github.com/micro/go-micro/registry"

func Metadata(md map[string]string) []string           { return encodeMetadata(md) }
func Endpoints(en []*registry.Endpoint) []string       { return encodeEndpoints(en) }
func Version(v string) []string                        { return encodeVersion(v) }
func ReadMetadata(tags []string) map[string]string     { return decodeMetadata(tags) }
func ReadEndpoints(tags []string) []*registry.Endpoint { return decodeEndpoints(tags) }
func ReadVersion(tags []string) (string, bool)         { return decodeVersion(tags) }
