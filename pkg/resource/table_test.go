package resource

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// testNow is the time at which tables are made here; examples are an hour old.
var testNow = time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)

// example reads testdata/kinds/<plural>[.<group>].yaml strictly: a minimal
// object as a person writes it.
func example(t *testing.T, r *Resource) runtime.Object {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "kinds", r.GroupResource().String()+".yaml"))
	if err != nil {
		t.Fatalf("each kind needs an example: %v", err)
	}
	obj := r.New()
	if err := yaml.UnmarshalStrict(data, obj); err != nil {
		t.Fatalf("the example of %s: %v", r.GVK(), err)
	}
	if got := obj.GetObjectKind().GroupVersionKind(); got != r.GVK() {
		t.Fatalf("the example of %s is a %s", r.GVK(), got)
	}
	return obj
}

// created is the example as a create leaves it: defaulted and prepared.
func created(t *testing.T, r *Resource) runtime.Object {
	t.Helper()
	obj := example(t, r)
	create(r, obj)
	return obj
}

func create(r *Resource, obj runtime.Object) {
	stamp(r, obj)
	if r.Prepare != nil {
		r.Prepare(obj, nil)
	}
}

// stamp defaults obj and gives it the metadata that the server sets.
func stamp(r *Resource, obj runtime.Object) {
	if r.Default != nil {
		r.Default(obj)
	}
	if m, err := meta.Accessor(obj); err == nil && !r.Nameless {
		m.SetCreationTimestamp(metav1.NewTime(testNow.Add(-time.Hour)))
		m.SetUID("u-1")
		if r.HasGeneration {
			m.SetGeneration(1)
		}
	}
}

func eachResource(t *testing.T, f func(t *testing.T, r *Resource)) {
	for _, r := range Builtin().All() {
		t.Run(r.GroupResource().String(), func(t *testing.T) { f(t, r) })
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]string{}
	claim := func(what, name string, r *Resource) {
		key := what + " " + name
		if other, taken := seen[key]; taken {
			t.Errorf("%s is of both %s and %s", key, other, r.GVK())
		}
		seen[key] = r.GVK().String()
	}
	for _, r := range Builtin().All() {
		claim("plural", r.GroupResource().String(), r)
		claim("kind", r.GVK().GroupKind().String(), r)
		if r.Stored() {
			claim("storage path", r.StoragePath, r)
		}
		for _, s := range r.ShortNames {
			claim("short name", s, r)
		}
	}
}

func TestTypesAreComplete(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		if r.Stored() && r.NewList == nil {
			t.Error("a stored kind needs a list type")
		}
		if r.Plural != strings.ToLower(r.Plural) || r.Singular != strings.ToLower(r.Kind) {
			t.Errorf("names %q and %q: want lower case and lower(kind)", r.Plural, r.Singular)
		}
		typ := reflect.TypeOf(r.New()).Elem()
		if typ.Name() != r.Kind {
			t.Errorf("kind %s is of type %s", r.Kind, typ)
		}
		if _, ok := typ.FieldByName("Status"); r.HasStatus && !ok {
			t.Error("HasStatus needs a Status field")
		}
		if r.NewList != nil {
			if want := typ.Name() + "List"; reflect.TypeOf(r.NewList()).Elem().Name() != want {
				t.Errorf("list type is %T, want %s", r.NewList(), want)
			}
		}
		if (r.Scale == nil) != (r.SetScale == nil) {
			t.Error("Scale and SetScale belong together")
		}
		if _, has := r.Subresource("scale"); has != (r.Scale != nil) {
			t.Errorf("scale listed: %v, hooks there: %v", has, r.Scale != nil)
		}
		if (r.Row == nil) != (r.Columns == nil) {
			t.Error("Row and Columns belong together")
		}
	})
}

func TestExamplesSurviveEncoding(t *testing.T) {
	scheme := Builtin().Scheme()
	proto := protobuf.NewSerializer(scheme, scheme)
	eachResource(t, func(t *testing.T, r *Resource) {
		obj := created(t, r)
		for name, copied := range map[string]func() (runtime.Object, error){
			"json": func() (runtime.Object, error) {
				data, err := json.Marshal(obj)
				if err != nil {
					return nil, err
				}
				out := r.New()
				return out, json.Unmarshal(data, out)
			},
			"protobuf": func() (runtime.Object, error) {
				data, err := runtime.Encode(proto, obj)
				if err != nil {
					return nil, err
				}
				return runtime.Decode(proto, data)
			},
		} {
			got, err := copied()
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !equality.Semantic.DeepEqual(obj, got) {
				t.Errorf("%s changed the object:\n%s", name, cmp.Diff(obj, got))
			}
		}
	})
}

func TestDefaultIsIdempotent(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		if r.Default == nil {
			return
		}
		for _, obj := range []runtime.Object{r.New(), example(t, r)} {
			r.Default(obj)
			again := obj.DeepCopyObject()
			r.Default(again)
			if !equality.Semantic.DeepEqual(obj, again) {
				t.Errorf("a second Default changed the object:\n%s", cmp.Diff(obj, again))
			}
		}
	})
}

// TestPrepareSharesNothing: what Prepare takes from the stored object is
// copied, for that one may be somebody's cache.
func TestPrepareSharesNothing(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		if r.Prepare == nil {
			return
		}
		old := created(t, r)
		before := old.DeepCopyObject()
		obj := r.New()
		r.Prepare(obj, old)
		scramble(reflect.ValueOf(obj))
		if diff := cmp.Diff(before, old); diff != "" {
			t.Errorf("a change of the prepared object reached the stored one:\n%s", diff)
		}
	})
}

// scramble overwrites every string and map that can be reached through v.
func scramble(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			scramble(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				scramble(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			scramble(v.Index(i))
		}
	case reflect.Map:
		if !v.IsNil() {
			v.Clear()
		}
	case reflect.String:
		if v.CanSet() {
			v.SetString("scrambled")
		}
	}
}

// TestDefaultLeavesStoredObjects: what was created goes through Default again
// with each update, and may not change by it.
func TestDefaultLeavesStoredObjects(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		if r.Default == nil {
			return
		}
		obj := created(t, r)
		again := obj.DeepCopyObject()
		r.Default(again)
		if !equality.Semantic.DeepEqual(obj, again) {
			t.Errorf("Default changed a stored object:\n%s", cmp.Diff(obj, again))
		}
	})
}

func TestExamplesAreValid(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		obj := created(t, r)
		if r.Validate != nil {
			if errs := r.Validate(obj); len(errs) > 0 {
				t.Errorf("create: %v", errs)
			}
		}
		if r.ValidateCreate != nil {
			if errs := r.ValidateCreate(obj); len(errs) > 0 {
				t.Errorf("create: %v", errs)
			}
		}
		// An update that changes nothing is always allowed.
		same := obj.DeepCopyObject()
		if r.Prepare != nil {
			r.Prepare(same, obj)
		}
		if !equality.Semantic.DeepEqual(obj, same) {
			t.Errorf("Prepare changed an unchanged object:\n%s", cmp.Diff(obj, same))
		}
		if r.ValidateUpdate != nil {
			if errs := r.ValidateUpdate(same, obj); len(errs) > 0 {
				t.Errorf("update: %v", errs)
			}
		}
		if r.ValidateStatus != nil {
			if errs := r.ValidateStatus(same, obj); len(errs) > 0 {
				t.Errorf("update of status: %v", errs)
			}
		}
	})
}

func TestEmptyObjectsDoNotPanic(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		obj := r.New()
		for name, call := range map[string]func(){
			"Validate": func() { r.Validate(obj) }, "ValidateCreate": func() { r.ValidateCreate(obj) }, "ValidateUpdate": func() { r.ValidateUpdate(obj, r.New()) },
			"ValidateStatus": func() { r.ValidateStatus(obj, r.New()) }, "Fields": func() { r.Fields(obj) },
			"Row": func() { r.Row(obj, testNow) }, "Prepare": func() { r.Prepare(r.New(), nil); r.Prepare(r.New(), obj) },
			"PrepareStatus": func() { r.PrepareStatus(r.New(), obj) }, "Warnings": func() { r.Warnings(obj, nil) },
			"Grace": func() { r.Grace(obj, nil) }, "Held": func() { r.Held(obj) }, "Scale": func() { r.Scale(obj) }, "Default": func() { r.Default(r.New()) },
		} {
			if !reflect.ValueOf(r).Elem().FieldByName(name).IsNil() {
				call()
			}
		}
	})
}

func TestFieldsAreListed(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		listed := map[string]bool{}
		for _, name := range r.FieldNames {
			listed[name] = true
		}
		if r.Fields != nil {
			for name := range r.Fields(created(t, r)) {
				if !listed[name] {
					t.Errorf("Fields returns %q, which FieldNames lacks", name)
				}
			}
		} else if len(r.FieldNames) > 0 {
			t.Errorf("FieldNames %v without Fields", r.FieldNames)
		}
		for _, v := range r.Views {
			for name, stored := range v.FieldNames {
				if !listed[stored] {
					t.Errorf("view %s/%s maps %q to %q, which is not selectable", v.Group, v.Version, name, stored)
				}
			}
		}
	})
}

// TestDefaultsGolden compares each example after Default and Prepare with
// testdata/kinds/<name>.golden.
func TestDefaultsGolden(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		data, err := yaml.Marshal(created(t, r))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join("kinds", r.GroupResource().String()+".golden"), string(data))
	})
}

// TestRowsGolden shows the table line of each example.
func TestRowsGolden(t *testing.T) {
	var out strings.Builder
	for _, r := range Builtin().All() {
		if r.Row == nil {
			continue
		}
		obj := example(t, r)
		stamp(r, obj)
		row := r.Row(obj, testNow)
		if len(row) != len(r.Columns) {
			t.Errorf("%s: %d cells for %d columns", r.GVK(), len(row), len(r.Columns))
			continue
		}
		fmt.Fprintf(&out, "%s\n", r.GroupResource())
		for i, c := range r.Columns {
			if c.Type == "integer" && reflect.TypeOf(row[i]) != reflect.TypeOf(int64(0)) {
				t.Errorf("%s: cell %s is a %T, want int64", r.GVK(), c.Name, row[i])
			}
			wide := ""
			if c.Priority > 0 {
				wide = " (wide)"
			}
			fmt.Fprintf(&out, "\t%s%s: %v\n", c.Name, wide, row[i])
		}
	}
	golden(t, "rows.golden", out.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func TestViewsShareNothing(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		for _, v := range r.Views {
			stored := created(t, r)
			before := stored.DeepCopyObject()
			view, err := v.To(stored)
			if err != nil {
				t.Fatal(err)
			}
			scramble(reflect.ValueOf(view))
			if diff := cmp.Diff(before, stored); diff != "" {
				t.Errorf("a change of the view reached the stored object:\n%s", diff)
			}
			if reflect.TypeOf(view) != reflect.TypeOf(v.New()) {
				t.Errorf("To makes a %T, New a %T", view, v.New())
			}
		}
	})
}
