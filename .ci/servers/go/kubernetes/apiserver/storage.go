package main

import (
	"context"
	"fmt"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	registry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
)

// A strategy that takes every object as it is.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	namespaced bool
}

func (s strategy) NamespaceScoped() bool                                          { return s.namespaced }
func (strategy) PrepareForCreate(context.Context, runtime.Object)                 {}
func (strategy) PrepareForUpdate(context.Context, runtime.Object, runtime.Object) {}
func (strategy) Validate(context.Context, runtime.Object) field.ErrorList         { return nil }
func (strategy) ValidateUpdate(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return nil
}
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }
func (strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}
func (strategy) AllowCreateOnUpdate() bool      { return true }
func (strategy) AllowUnconditionalUpdate() bool { return true }
func (strategy) Canonicalize(runtime.Object)    {}

// stored keeps a resource in etcd, behind the watch cache.
func stored(options generic.RESTOptionsGetter, r resource) rest.Storage {
	plural := schema.GroupResource{Group: r.group, Resource: r.name}
	rules := strategy{scheme, names.SimpleNameGenerator, r.namespaced}
	store := &registry.Store{
		NewFunc:     func() runtime.Object { return r.object.DeepCopyObject() },
		NewListFunc: func() runtime.Object { return r.list.DeepCopyObject() },
		PredicateFunc: func(label labels.Selector, field fields.Selector) storage.SelectionPredicate {
			return storage.SelectionPredicate{Label: label, Field: field, GetAttrs: attributes}
		},
		DefaultQualifiedResource:  plural,
		SingularQualifiedResource: schema.GroupResource{Group: r.group, Resource: r.singular},
		CreateStrategy:            rules,
		UpdateStrategy:            rules,
		DeleteStrategy:            rules,
		TableConvertor:            rest.NewDefaultTableConvertor(plural),
	}
	must(store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: options, AttrFunc: attributes}))
	return store
}

func attributes(object runtime.Object) (labels.Set, fields.Set, error) {
	described, ok := object.(meta.Object)
	if !ok {
		return nil, nil, fmt.Errorf("%T has no metadata", object)
	}
	selectable := fields.Set{"metadata.name": described.GetName(), "metadata.namespace": described.GetNamespace()}
	return described.GetLabels(), selectable, nil
}
