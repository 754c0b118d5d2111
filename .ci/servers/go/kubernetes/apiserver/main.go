// A Kubernetes API server for tests: the library k8s.io/apiserver over etcd, with the resources that discovery reads.
//
// Lists, watches, bookmarks, resource versions and their expiry, errors and encodings are those of every API
// server, because the code is. There are no controllers, no validation and no kubelets: tests write endpoint
// slices themselves. It listens on loopback only.
package main

import (
	"flag"
	"log"
	"net"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	extensions "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

var (
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

// A resource that is served, and how an object and a list of it are made.
type resource struct {
	group, name, singular string
	namespaced            bool
	object, list          runtime.Object
}

// In the discovery and coordination groups, and in the one without a name.
var resources = []resource{
	{"discovery.k8s.io", "endpointslices", "endpointslice", true, &discovery.EndpointSlice{}, &discovery.EndpointSliceList{}},
	{"coordination.k8s.io", "leases", "lease", true, &coordination.Lease{}, &coordination.LeaseList{}},
	{"", "services", "service", true, &core.Service{}, &core.ServiceList{}},
	{"", "endpoints", "endpoints", true, &core.Endpoints{}, &core.EndpointsList{}},
	{"", "pods", "pod", true, &core.Pod{}, &core.PodList{}},
	{"", "nodes", "node", false, &core.Node{}, &core.NodeList{}},
	{"", "namespaces", "namespace", false, &core.Namespace{}, &core.NamespaceList{}},
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	etcd := flag.String("etcd", "", "URL of an etcd 3.5")
	port := flag.Int("port", 0, "port on 127.0.0.1")
	certificates := flag.String("cert-dir", "", "folder for a self-signed certificate, apiserver.crt")
	prefix := flag.String("prefix", "/registry", "prefix of all keys in etcd")
	tokens := flag.String("tokens", "", "file of tokens and what they permit")
	klog.InitFlags(nil)
	flag.Parse()

	registerTypes()
	config := server.NewRecommendedConfig(codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	config.LegacyAPIGroupPrefixes.Insert("/api")
	config.OpenAPIV3Config = server.DefaultOpenAPIV3Config(definitions, openapi.NewDefinitionNamer(scheme))

	serving := options.NewSecureServingOptions()
	serving.BindAddress, serving.BindPort = net.IPv4(127, 0, 0, 1), *port
	serving.ServerCert.CertDirectory, serving.ServerCert.PairName = *certificates, "apiserver"
	secure := serving.WithLoopback()
	must(secure.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1)}))
	must(secure.ApplyTo(&config.SecureServing, &config.LoopbackClientConfig))

	codec := codecs.LegacyCodec(discovery.SchemeGroupVersion, coordination.SchemeGroupVersion, core.SchemeGroupVersion)
	storage := options.NewEtcdOptions(storagebackend.NewDefaultConfig(*prefix, codec))
	storage.StorageConfig.Transport.ServerList = []string{*etcd}
	must(storage.ApplyTo(&config.Config))
	guard(&config.Config, *tokens)

	serverOf, err := config.Complete().New("tests", server.NewEmptyDelegate())
	must(err)
	must(serverOf.InstallAPIGroups(group(config.RESTOptionsGetter, "discovery.k8s.io"), group(config.RESTOptionsGetter, "coordination.k8s.io")))
	must(serverOf.InstallLegacyAPIGroup("/api", group(config.RESTOptionsGetter, "")))
	must(serverOf.PrepareRun().RunWithContext(server.SetupSignalContext()))
}

// registerTypes makes each type its own internal version, so that nothing has to be converted.
func registerTypes() {
	must(discovery.AddToScheme(scheme))
	must(coordination.AddToScheme(scheme))
	must(core.AddToScheme(scheme))
	for _, r := range resources {
		scheme.AddKnownTypes(schema.GroupVersion{Group: r.group, Version: runtime.APIVersionInternal}, r.object, r.list)
	}
	meta.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
}

// group is all that is served of one API group.
func group(options generic.RESTOptionsGetter, name string) *server.APIGroupInfo {
	info := server.NewDefaultAPIGroupInfo(name, scheme, meta.ParameterCodec, codecs)
	info.PrioritizedVersions = []schema.GroupVersion{{Group: name, Version: "v1"}}
	served := map[string]rest.Storage{}
	for _, r := range resources {
		if r.group == name {
			served[r.name] = stored(options, r)
		}
	}
	info.VersionedResourcesStorageMap["v1"] = served
	return &info
}

// definitions describes the resources as objects of any shape: the server wants a description of each.
func definitions(reference common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := extensions.GetOpenAPIDefinitions(reference)
	anything := common.OpenAPIDefinition{Schema: spec.Schema{
		SchemaProps:      spec.SchemaProps{Type: []string{"object"}},
		VendorExtensible: spec.VendorExtensible{Extensions: spec.Extensions{"x-kubernetes-preserve-unknown-fields": true}},
	}}
	type named interface{ OpenAPIModelName() string }
	for _, r := range resources {
		for _, object := range []runtime.Object{r.object, r.list} {
			all[object.(named).OpenAPIModelName()] = anything
		}
	}
	return all
}
