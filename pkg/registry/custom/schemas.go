package custom

import (
	"container/list"
	"encoding/json"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"weak"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/managedfields"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"coracle/pkg/registry/ownership"
)

// Schemas keeps compiled schemas, those that were used last, within a bound.
// What it let go is found again for as long as somebody holds it. The zero
// value keeps nothing.
type Schemas struct {
	// Limit bounds the estimated bytes of what is kept.
	Limit int

	mu      sync.Mutex
	entries map[schemaKey]*entry // guarded by mu
	recent  list.List            // of *entry, the last used first; guarded by mu
	used    int                  // guarded by mu
}

type schemaKey struct {
	definition *Definition
	version    string
}

// entry is a schema that somebody asked for.
type entry struct {
	key  schemaKey
	weak weak.Pointer[compiled]
	kept *compiled     // nil when let go
	elem *list.Element // in recent while kept
}

// What a compiled schema costs, as measured: for each byte of its JSON; for a
// schema at all, with the description for field ownership; and for each rule,
// which is a program.
const (
	perByte    = 14
	perVersion = 24 << 10
	perRule    = 64 << 10
)

// compiled is what objects of one version are processed with.
type compiled struct {
	// shape is for objects that are as they should be, nil where the library
	// has to look at all of them.
	shape *shape
	// embeds says that there are embedded resources, deep that an update may
	// match more junctors than a create (see shaper).
	embeds, deep bool
	hasRules     bool // there are x-kubernetes-validations
	size         int  // estimated bytes

	// load makes the library's part again.
	load   func() (*library, error)
	making sync.Mutex              // held while lib is made
	lib    atomic.Pointer[library] // nil until asked for

	mu       sync.Mutex
	managers map[string]*managedfields.FieldManager // by subresource; guarded by mu
	types    managedfields.TypeConverter            // nil until asked for; guarded by mu

	ownOnce sync.Once
	own     *ownership.Kind // nil when the schema cannot be followed; set by ownOnce
}

// library is a schema in the library's forms, which say what is wrong with an
// object.
type library struct {
	// structural is nil for a version without a (structural) schema.
	structural *structuralschema.Structural
	// whole validates objects, status what /status writes.
	whole, status validation.SchemaValidator
	// rules are the x-kubernetes-validations, nil when there are none.
	rules *cel.Validator
}

// library returns the schema in the library's forms.
func (c *compiled) library() (*library, error) {
	if lib := c.lib.Load(); lib != nil {
		return lib, nil
	}
	c.making.Lock()
	defer c.making.Unlock()
	if lib := c.lib.Load(); lib != nil {
		return lib, nil
	}
	lib, err := c.load()
	if err == nil {
		c.lib.Store(lib)
	}
	return lib, err
}

// get returns the compiled schema of a version.
func (s *Schemas) get(d *Definition, version string) (*compiled, error) {
	key := schemaKey{d, version}
	s.mu.Lock()
	if c := s.find(key); c != nil {
		s.mu.Unlock()
		return c, nil
	}
	s.mu.Unlock()
	// Two callers may compile at once; one of the results is kept.
	crd, err := d.src.Load()
	if err != nil {
		return nil, fmt.Errorf("read the schema of %s: %w", d.name, err)
	}
	c, err := compile(crd, version, d.src.Load)
	if err != nil {
		return nil, fmt.Errorf("compile the schema of %s, version %s: %w", d.name, version, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.find(key); other != nil {
		return other, nil
	}
	s.keep(key, c)
	return c, nil
}

// find returns a schema that is still there and marks it as used. s.mu is held.
func (s *Schemas) find(key schemaKey) *compiled {
	e := s.entries[key]
	if e == nil {
		return nil
	}
	if e.kept != nil {
		s.recent.MoveToFront(e.elem)
		return e.kept
	}
	c := e.weak.Value()
	if c == nil {
		delete(s.entries, key)
		return nil
	}
	s.keep(key, c)
	return c
}

// keep puts a schema first and lets go of the last ones. s.mu is held.
func (s *Schemas) keep(key schemaKey, c *compiled) {
	if s.entries == nil {
		s.entries = map[schemaKey]*entry{}
	}
	e := &entry{key: key, weak: weak.Make(c), kept: c}
	e.elem = s.recent.PushFront(e)
	s.entries[key] = e
	s.used += c.size
	for s.used > s.Limit && s.recent.Len() > 1 {
		s.letGo(s.recent.Back().Value.(*entry))
	}
}

// letGo leaves a schema to the garbage collector. s.mu is held.
func (s *Schemas) letGo(e *entry) {
	s.recent.Remove(e.elem)
	s.used -= e.kept.size
	e.kept, e.elem = nil, nil
}

// Forget drops the schemas of a definition that is served no more.
func (s *Schemas) Forget(d *Definition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, version := range d.versions {
		if e := s.entries[schemaKey{d, version}]; e != nil {
			if e.kept != nil {
				s.letGo(e)
			}
			delete(s.entries, e.key)
		}
	}
}

// compile compiles a version. load reads the definition again.
func compile(crd *apiextensionsv1.CustomResourceDefinition, version string, load func() (*apiextensionsv1.CustomResourceDefinition, error)) (*compiled, error) {
	v := versionOf(crd, version)
	if v == nil {
		return nil, errNoSchema
	}
	lib, open, err := newLibrary(crd, v)
	if err != nil {
		return nil, err
	}
	c := &compiled{managers: map[string]*managedfields.FieldManager{}, size: perVersion}
	c.load = func() (*library, error) {
		crd, err := load()
		if err != nil {
			return nil, err
		}
		v := versionOf(crd, version)
		if v == nil {
			return nil, errNoSchema
		}
		lib, _, err := newLibrary(crd, v)
		return lib, err
	}
	if lib.structural != nil && !crd.Spec.PreserveUnknownFields {
		b := shaper{patterns: map[string]*regexp.Regexp{}}
		c.shape = b.root(open, lib.structural)
		c.embeds, c.deep = b.embeds, b.deep
	}
	if v.Schema != nil {
		text, err := json.Marshal(v.Schema)
		if err != nil {
			return nil, err
		}
		c.size += perByte * len(text)
	}
	n := ruleCount(lib.structural)
	c.hasRules, c.size = n > 0, c.size+n*perRule
	if c.hasRules || c.shape == nil {
		c.lib.Store(lib)
	}
	return c, nil
}

// newLibrary compiles a version for the library. open is the schema that its
// validator follows.
func newLibrary(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) (lib *library, open *spec.Schema, err error) {
	props, structural, err := structuralOf(crd, v)
	if err != nil {
		return nil, nil, err
	}
	lib = &library{structural: structural}
	if lib.whole, open, err = validation.NewSchemaValidator(props); err != nil {
		return nil, nil, err
	}
	if props != nil {
		if status, ok := props.Properties["status"]; ok && v.Subresources != nil && v.Subresources.Status != nil {
			if lib.status, _, err = validation.NewSchemaValidator(&status); err != nil {
				return nil, nil, err
			}
		}
	}
	if ruleCount(structural) > 0 {
		lib.rules = cel.NewValidator(structural, true, celconfig.PerCallLimit)
	}
	return lib, open, nil
}

func versionOf(crd *apiextensionsv1.CustomResourceDefinition, name string) *apiextensionsv1.CustomResourceDefinitionVersion {
	for i := range crd.Spec.Versions {
		if crd.Spec.Versions[i].Name == name {
			return &crd.Spec.Versions[i]
		}
	}
	return nil
}

// structuralOf returns the version's schema in the library's forms; both are
// nil without a schema.
func structuralOf(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) (*apiextensions.JSONSchemaProps, *structuralschema.Structural, error) {
	props, err := propsOf(v)
	if props == nil {
		return nil, nil, err
	}
	s, err := structuralschema.NewStructural(props)
	if crd.Spec.PreserveUnknownFields {
		if err != nil {
			s = nil // old definitions need not be structural
		}
		return props, s, nil
	}
	if err != nil {
		return nil, nil, err
	}
	s = s.DeepCopy() // the library shares defaults with its input
	return props, s, defaulting.PruneDefaults(s)
}

// propsOf is the version's schema in the library's internal form, nil when it
// has none.
func propsOf(v *apiextensionsv1.CustomResourceDefinitionVersion) (*apiextensions.JSONSchemaProps, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil, nil
	}
	in := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, in, nil); err != nil {
		return nil, err
	}
	return in.OpenAPIV3Schema, nil
}

// ruleCount counts the validation rules of a schema.
func ruleCount(s *structuralschema.Structural) int {
	if s == nil {
		return 0
	}
	n := 0
	visitor := structuralschema.Visitor{
		Structural: func(s *structuralschema.Structural) bool { n += len(s.XValidations); return false },
		NestedValueValidation: func(s *structuralschema.NestedValueValidation) bool {
			n += len(s.ValidationExtensions.XValidations)
			return false
		},
	}
	visitor.Visit(s)
	return n
}
