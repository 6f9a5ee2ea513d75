package fieldtypes

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdconfigurations "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiserviceconfigurations "k8s.io/kube-aggregator/pkg/client/applyconfiguration"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"coracle/pkg/resource"
)

var update = flag.Bool("update", false, "make types.txt anew from the schemas of the libraries")

// library is what types.txt is made from.
type library struct {
	common managedfields.TypeConverter
	groups map[string]managedfields.TypeConverter // that have modules of their own
}

func (l library) schema(obj runtime.Object) (*schema.Schema, string) {
	conv, ok := l.groups[obj.GetObjectKind().GroupVersionKind().Group]
	if !ok {
		conv = l.common
	}
	tv, err := conv.ObjectToTyped(obj, typed.AllowDuplicates)
	if err != nil {
		return nil, "" // a review, which is not stored
	}
	return tv.Schema(), *tv.TypeRef().NamedType
}

// eachKind calls f with an empty object of each kind that the table has, also
// as its views.
func eachKind(t *testing.T, f func(t *testing.T, obj runtime.Object)) {
	table := resource.Builtin()
	kind := func(gvk runtimeschema.GroupVersionKind) {
		obj, err := table.Scheme().New(gvk)
		if err != nil {
			t.Fatal(err)
		}
		obj.GetObjectKind().SetGroupVersionKind(gvk)
		f(t, obj)
	}
	for _, res := range table.All() {
		kind(res.GVK())
		for i := range res.Views {
			v := &res.Views[i]
			kind(runtimeschema.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: v.Kind})
		}
	}
}

// closure is a type of a schema with all that it refers to.
func closure(t *testing.T, s *schema.Schema, name string, into map[string]schema.TypeDef) {
	if _, ok := into[name]; ok {
		return
	}
	def, ok := s.FindNamedType(name)
	if !ok {
		t.Fatalf("the library's schema has no type %s", name)
	}
	into[name] = def
	eachRef(&def.Atom, func(other string) { closure(t, s, other, into) })
}

// TestTypesAreTheLibraries: of every kind, each type says what the library's
// says.
func TestTypesAreTheLibraries(t *testing.T) {
	scheme := resource.Builtin().Scheme()
	lib := library{applyconfigurations.NewTypeConverter(scheme), map[string]managedfields.TypeConverter{
		apiextensionsv1.GroupName:   crdconfigurations.NewTypeConverter(scheme),
		apiregistrationv1.GroupName: apiserviceconfigurations.NewTypeConverter(scheme),
	}}
	if *update {
		write(t, lib)
	}
	ours, kinds := New(scheme), 0
	same := cmp.Options{
		cmpopts.IgnoreUnexported(schema.Schema{}, schema.Map{}),
		cmpopts.IgnoreFields(schema.Map{}, "Unions"),
		cmp.Transformer("default", func(f schema.StructField) [3]any { return [3]any{f.Name, f.Type, scalar(f.Default)} }),
	}
	eachKind(t, func(t *testing.T, obj runtime.Object) {
		s, name := lib.schema(obj)
		tv, err := ours.ObjectToTyped(obj, typed.AllowDuplicates)
		if (s == nil) != (err != nil) {
			t.Fatalf("%T: the library has a schema: %v; ours: %v", obj, s != nil, err)
		}
		if s == nil {
			return
		}
		kinds++
		want, got := map[string]schema.TypeDef{}, map[string]schema.TypeDef{}
		closure(t, s, name, want)
		for _, def := range tv.Schema().Types {
			got[def.Name] = def
		}
		if d := cmp.Diff(want, got, same); d != "" {
			t.Fatalf("%T (after an update of the libraries, run this with -update): library (-), ours (+):\n%s", obj, d)
		}
	})
	if kinds < 60 {
		t.Errorf("only %d kinds have a schema", kinds)
	}
}

// scalar is a default that is one, else nil.
func scalar(v any) any {
	switch v.(type) {
	case string, int, bool:
		return v
	}
	return nil
}

func TestUnknownKind(t *testing.T) {
	scheme := runtime.NewScheme()
	obj := resource.Builtin().All()[0].New()
	if _, err := New(scheme).ObjectToTyped(obj); err == nil {
		t.Error("a kind that the scheme lacks was converted")
	}
}

func write(t *testing.T, lib library) {
	types := map[string]schema.TypeDef{}
	lines := map[string]string{}
	eachKind(t, func(t *testing.T, obj runtime.Object) {
		s, name := lib.schema(obj)
		if s == nil {
			return
		}
		clear(types)
		closure(t, s, name, types)
		for name, def := range types {
			form, err := json.Marshal(encodeAtom(&def.Atom))
			if err != nil {
				t.Fatal(err)
			}
			if line, ok := lines[name]; ok && line != string(form) {
				t.Fatalf("two libraries describe %s differently:\n%s\n%s", name, line, form)
			}
			lines[name] = string(form)
		}
	})
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		out.WriteString(name + " " + lines[name] + "\n")
	}
	text = out.String()
	if err := os.WriteFile("types.txt", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func encodeAtom(a *schema.Atom) *atom {
	out := &atom{}
	if a.Scalar != nil {
		out.Scalar = string(*a.Scalar)
	}
	if a.List != nil {
		out.List = &list{Item: encodeRef(&a.List.ElementType), Relation: string(a.List.ElementRelationship), Keys: a.List.Keys}
	}
	if a.Map == nil {
		return out
	}
	out.Map = &fields{Relation: string(a.Map.ElementRelationship)}
	if e := encodeRef(&a.Map.ElementType); !cmp.Equal(e, ref{}, cmp.AllowUnexported(ref{})) {
		out.Map.Element = &e
	}
	for i := range a.Map.Fields {
		f := &a.Map.Fields[i]
		out.Map.Fields = append(out.Map.Fields, field{Name: f.Name, Type: encodeRef(&f.Type), Default: scalar(f.Default)})
	}
	return out
}

func encodeRef(r *schema.TypeRef) ref {
	out := ref{Nullable: r.Nullable, atom: *encodeAtom(&r.Inlined)}
	if r.NamedType != nil {
		out.Named = *r.NamedType
	}
	if r.ElementRelationship != nil {
		relation := string(*r.ElementRelationship)
		out.Relation = &relation
	}
	return out
}

// BenchmarkFirstKind is what a kind costs that is asked for first: it is on the
// way from the start to the first answer.
func BenchmarkFirstKind(b *testing.B) {
	scheme := resource.Builtin().Scheme()
	for _, kind := range []string{"Namespace", "Pod"} {
		gvk := runtimeschema.GroupVersionKind{Version: "v1", Kind: kind}
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := New(scheme).kind(gvk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
