package fieldtypes

import (
	_ "embed" // types.txt
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// text has a line for each type: its name, a space and its form.
//
//go:embed types.txt
var text string

// Converter is a managedfields.TypeConverter of the kinds of a scheme. It may be
// used by any number of goroutines.
type Converter struct {
	scheme *runtime.Scheme

	mu    sync.Mutex                                             // guards all below
	lines map[string]string                                      // of text by name; nil until the first kind is asked for
	types map[string]schema.TypeDef                              // that have been read, shared by the kinds
	kinds map[runtimeschema.GroupVersionKind]typed.ParseableType // that have been asked for
}

var _ managedfields.TypeConverter = (*Converter)(nil)

// New returns a converter of the kinds of the scheme that types.txt describes.
func New(scheme *runtime.Scheme) *Converter {
	return &Converter{scheme: scheme, types: map[string]schema.TypeDef{}, kinds: map[runtimeschema.GroupVersionKind]typed.ParseableType{}}
}

// ObjectToTyped implements managedfields.TypeConverter. It fails for a kind that
// is not described.
func (c *Converter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	t, err := c.kind(obj.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return t.FromUnstructured(u.UnstructuredContent(), opts...)
	}
	return t.FromStructured(obj, opts...)
}

// TypedToObject implements managedfields.TypeConverter.
func (c *Converter) TypedToObject(value *typed.TypedValue) (runtime.Object, error) {
	content, ok := value.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("a value of type %T is no object", value.AsValue().Unstructured())
	}
	return &unstructured.Unstructured{Object: content}, nil
}

// kind returns the type of a kind in a schema of nothing but what it needs.
func (c *Converter) kind(gvk runtimeschema.GroupVersionKind) (typed.ParseableType, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.kinds[gvk]; ok {
		return t, nil
	}
	name, err := c.scheme.ToOpenAPIDefinitionName(gvk)
	if err != nil {
		return typed.ParseableType{}, err
	}
	s := &schema.Schema{}
	if err := c.addLocked(s, map[string]bool{}, name); err != nil {
		return typed.ParseableType{}, fmt.Errorf("the fields of %s: %w", gvk.Kind, err)
	}
	t := typed.ParseableType{Schema: s, TypeRef: schema.TypeRef{NamedType: &name}}
	c.kinds[gvk] = t
	return t, nil
}

// addLocked adds a type to a schema with all that it refers to.
func (c *Converter) addLocked(s *schema.Schema, have map[string]bool, name string) error {
	if have[name] {
		return nil
	}
	have[name] = true
	def, err := c.typeLocked(name)
	if err != nil {
		return err
	}
	s.Types = append(s.Types, def)
	eachRef(&def.Atom, func(other string) {
		if err == nil {
			err = c.addLocked(s, have, other)
		}
	})
	return err
}

func (c *Converter) typeLocked(name string) (schema.TypeDef, error) {
	if def, ok := c.types[name]; ok {
		return def, nil
	}
	if c.lines == nil {
		c.lines = map[string]string{}
		for line := range strings.Lines(text) {
			name, form, _ := strings.Cut(line, " ")
			c.lines[name] = form
		}
	}
	line, ok := c.lines[name]
	if !ok {
		return schema.TypeDef{}, fmt.Errorf("types.txt has no type %s", name)
	}
	def, err := decodeType(name, line)
	if err == nil {
		c.types[name] = def
	}
	return def, err
}
