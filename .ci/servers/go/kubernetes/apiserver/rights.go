package main

import (
	"context"
	"net/http"
	"os"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server"
)

// guard lets in those whose token stands in the file, which is read again for each request. A line is a token and
// what it permits: `*` everything, a namespace to list and watch its endpoint slices, `-` nothing.
func guard(config *server.Config, file string) {
	config.Authentication.Authenticator = authenticator.RequestFunc(func(request *http.Request) (*authenticator.Response, bool, error) {
		token, given := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		if !given {
			return &authenticator.Response{User: &user.DefaultInfo{Name: user.Anonymous}}, true, nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, false, err
		}
		for _, line := range strings.Split(string(text), "\n") {
			if words := strings.Fields(line); len(words) == 2 && words[0] == token {
				return &authenticator.Response{User: &user.DefaultInfo{Name: words[1]}}, true, nil
			}
		}
		return nil, false, nil
	})
	config.Authorization.Authorizer = authorizer.AuthorizerFunc(func(_ context.Context, asked authorizer.Attributes) (authorizer.Decision, string, error) {
		permits := asked.GetUser().GetName()
		follows := asked.GetVerb() == "list" || asked.GetVerb() == "watch"
		if permits == "*" || !asked.IsResourceRequest() ||
			(follows && asked.GetResource() == "endpointslices" && asked.GetNamespace() == permits) {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionDeny, "the tests do not permit it", nil
	})
}
