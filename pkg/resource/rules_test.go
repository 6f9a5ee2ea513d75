package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// served calls visit for every struct type of the API, once.
func served(visit func(reflect.Type)) {
	seen := map[reflect.Type]bool{}
	for _, r := range Builtin().All() {
		if r.Group == "apiextensions.k8s.io" {
			continue // validated by Kubernetes' own library, see registry/custom
		}
		structsIn(reflect.TypeOf(r.New()), seen, visit)
		for _, v := range r.Views {
			structsIn(reflect.TypeOf(v.New()), seen, visit)
		}
	}
}

// TestEveryFieldHasRules: each field of each served type has its row, and
// nothing else has one.
func TestEveryFieldHasRules(t *testing.T) {
	all := readRules(t)
	exists := map[string]bool{}
	served(func(typ reflect.Type) {
		name := typeName(typ)
		exists[name] = true
		described := all.types[name]
		list, open := all.undescribed[name]
		switch {
		case described == nil && !open:
			t.Errorf("type %s is described in no file of testdata/rules", name)
		case described != nil && open:
			t.Errorf("type %s is described in %s: take it off %s", name, described.file, list)
		case described != nil:
			for _, difference := range fieldDifferences(typ, described) {
				t.Error(difference)
			}
		}
	})
	for name, typ := range all.types {
		if !exists[name] {
			t.Errorf("%s describes %s, which no kind has", typ.file, name)
		}
	}
	for name, list := range all.undescribed {
		if !exists[name] {
			t.Errorf("%s lists %s, which no kind has", list, name)
		}
	}
}

// fieldDifferences says which fields of a type have no row and which rows no
// field.
func fieldDifferences(typ reflect.Type, described *ruleType) []string {
	var out []string
	has := map[string]bool{}
	for i := range typ.NumField() {
		name, inline := jsonField(typ.Field(i))
		if inline || name == "-" || !typ.Field(i).IsExported() {
			continue
		}
		has[name] = true
		if !slices.ContainsFunc(described.rows, func(r ruleRow) bool { return r.field == name }) {
			out = append(out, fmt.Sprintf("%s: %s has no row for the field %s", described.file, described.name, name))
		}
	}
	for _, row := range described.rows {
		if !has[row.field] {
			out = append(out, fmt.Sprintf("%s: %s has no field %q", row.where, described.name, row.field))
		}
	}
	return out
}

// TestRules runs every row's example: it must fail with exactly the path and
// the reason that the row gives. A free field has a reason instead, and a
// nested one may be shown by the examples of a type below it.
func TestRules(t *testing.T) {
	all := readRules(t)
	runner := newRuleRunner()
	for _, typ := range all.types {
		for _, row := range typ.rows {
			if row.example == nil {
				continue
			}
			if err := runner.run(typ.name, row.example); err != nil {
				t.Errorf("%s: %s.%s, %s: %v", row.where, typ.name, row.field, row.class, err)
			}
			if (len(row.example.expect) == 0) != (row.class == "mutable") {
				t.Errorf("%s: rows of class mutable expect ok, and only they", row.where)
			}
		}
	}
	for _, typ := range all.types {
		checkClasses(t, typ, runner.passed)
	}
}

// checkClasses wants of each field that it is free, with a reason, or has an
// example that fails, its own or one below it; never both.
func checkClasses(t *testing.T, typ *ruleType, passed map[string]bool) {
	broken, free := map[string]bool{}, map[string]bool{}
	for _, row := range typ.rows {
		switch {
		case row.class == "free":
			free[row.field] = true
			if len(row.reason) < 8 {
				t.Errorf("%s: say why %s is free", row.where, row.field)
			}
		case row.example == nil:
			broken[row.field] = true
			if !passed[typ.name+"."+row.field] {
				t.Errorf("%s: no example is at a place below %s.%s: give the row one", row.where, typ.name, row.field)
			}
		case len(row.example.expect) > 0:
			broken[row.field] = true
		}
	}
	for _, row := range typ.rows {
		if f := row.field; broken[f] == free[f] {
			t.Errorf("%s: %s must be either free or have an example that fails", row.where, f)
		}
	}
}

// ruleRunner makes the objects of examples.
type ruleRunner struct {
	table *Table
	kinds map[string]*ruleKind // by name, as find knows it
	// valid are the places whose objects were found valid before any patch.
	valid map[rulePlace]error
	// passed are the fields ("core/v1.Pod.spec") that lead to a place.
	passed map[string]bool
}

func newRuleRunner() *ruleRunner {
	return &ruleRunner{table: Builtin(), kinds: map[string]*ruleKind{}, valid: map[rulePlace]error{}, passed: map[string]bool{}}
}

func (rr *ruleRunner) run(typ string, e *ruleExample) error {
	kind, err := rr.find(e.at.kind)
	if err != nil {
		return err
	}
	if _, known := rr.valid[e.at]; !known {
		rr.valid[e.at] = rr.checkPlace(kind, typ, e.at)
	}
	if err := rr.valid[e.at]; err != nil {
		return err
	}
	errs, err := kind.try(e)
	if err != nil {
		return err
	}
	return compareErrors(e, errs)
}

// checkPlace wants a place to be of the type that is described there, and its
// object to be valid before any example changes it.
func (rr *ruleRunner) checkPlace(kind *ruleKind, typ string, at rulePlace) error {
	t := reflect.TypeOf(kind.empty())
	for _, name := range splitPath(at.position) {
		to, owner, err := step(t, name)
		if err != nil {
			return fmt.Errorf("at %s %s: %w", at.kind, at.position, err)
		}
		if owner != "" {
			rr.passed[owner+"."+name] = true
		}
		t = to
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if !holds(t, typ) {
		return fmt.Errorf("at %s %s is a %s", at.kind, at.position, t)
	}
	errs, err := kind.try(&ruleExample{at: at, op: "create"})
	if err != nil {
		return err
	}
	if len(errs) > 0 {
		return fmt.Errorf("at %s %s: what the examples start from is not valid: %v", at.kind, at.position, errs)
	}
	return nil
}

// holds says that t is the type of that name or has it inline.
func holds(t reflect.Type, name string) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	if typeName(t) == name {
		return true
	}
	for i := range t.NumField() {
		if _, inline := jsonField(t.Field(i)); inline && holds(t.Field(i).Type, name) {
			return true
		}
	}
	return false
}

func compareErrors(e *ruleExample, errs field.ErrorList) error {
	var missing []string
	used := make([]bool, len(errs))
	for _, want := range e.expect {
		found := false
		for i, got := range errs {
			if strings.TrimPrefix(string(got.Type), "FieldValue") == want.reason && got.Field == want.path && strings.Contains(got.Detail, want.detail) {
				found, used[i] = true, true
			}
		}
		if !found {
			missing = append(missing, strings.TrimSpace(fmt.Sprintf("%s %s %s", want.reason, want.path, want.detail)))
		}
	}
	if len(missing) > 0 || (!e.more && slices.Contains(used, false)) {
		lines := make([]string, len(errs))
		for i, got := range errs {
			lines[i] = fmt.Sprintf("\n\t%s %s %.300q", strings.TrimPrefix(string(got.Type), "FieldValue"), got.Field, got.Detail)
		}
		return fmt.Errorf("%s {%s}: missing %q, got:%s", e.op, e.patch, missing, strings.Join(lines, ""))
	}
	return nil
}

// ruleKind is a kind or a view of one, with its example.
type ruleKind struct {
	res     *Resource
	view    *View
	example runtime.Object
}

// find knows a kind as "deployments.apps", a view with its version as
// "events.v1.events.k8s.io".
func (rr *ruleRunner) find(name string) (*ruleKind, error) {
	if k, known := rr.kinds[name]; known {
		return k, nil
	}
	gvr, gr := schema.ParseResourceArg(name)
	for _, r := range rr.table.All() {
		k := &ruleKind{res: r, example: r.New()}
		for i := range r.Views {
			if v := &r.Views[i]; gvr != nil && *gvr == (schema.GroupVersionResource{Group: v.Group, Version: v.Version, Resource: r.Plural}) {
				k.view = v
			}
		}
		if k.view == nil && r.GroupResource() != gr {
			continue
		}
		data, err := os.ReadFile(filepath.Join("testdata", "kinds", r.GroupResource().String()+".yaml"))
		if err != nil {
			return nil, err
		}
		rr.kinds[name] = k
		return k, yaml.UnmarshalStrict(data, k.example)
	}
	return nil, fmt.Errorf("there is no kind %q; write plural.group", name)
}

func (k *ruleKind) empty() runtime.Object {
	if k.view != nil {
		return k.view.New()
	}
	return k.res.New()
}

// try makes the example's object, does what it does, and returns the errors.
func (k *ruleKind) try(e *ruleExample) (field.ErrorList, error) {
	obj := k.example.DeepCopyObject()
	var err error
	ground := []string{e.at.with, e.setup}
	if e.op == "create" {
		if obj, err = k.changed(obj, e.at.position, append(ground, e.patch)...); err != nil {
			return nil, err
		}
		stamp(k.res, obj)
		k.res.PrepareCreate(obj)
		return k.res.CheckCreate(context.Background(), obj), nil
	}
	if obj, err = k.changed(obj, e.at.position, ground...); err != nil {
		return nil, err
	}
	stamp(k.res, obj)
	k.res.PrepareCreate(obj)
	// Once more, for what a create drops and something else wrote later.
	old, err := k.changed(obj, e.at.position, ground...)
	if err != nil {
		return nil, err
	}
	if k.res.Default != nil {
		k.res.Default(old)
	}
	if m, err := meta.Accessor(old); err == nil {
		m.SetResourceVersion("7")
	}
	if obj, err = k.changed(old, e.at.position, e.patch); err != nil {
		return nil, err
	}
	if k.res.Default != nil {
		k.res.Default(obj)
	}
	op := strings.TrimPrefix(e.op, "update")
	if _, ok := k.res.Subresource(op); op != "" && !ok {
		return nil, fmt.Errorf("%s has no subresource %q to do the example with", k.res.Plural, op)
	}
	k.res.PrepareUpdate(op, obj, old)
	return k.checkUpdate(op, obj, old)
}

// checkUpdate is what the kind finds wrong with an update. Of one that was found
// valid it says the same when that is known.
func (k *ruleKind) checkUpdate(op string, obj, old runtime.Object) (field.ErrorList, error) {
	errs := k.res.CheckUpdate(context.Background(), op, obj, old)
	if k.res.Validate != nil && len(k.res.Validate(old)) == 0 {
		known := k.res.CheckUpdateOfSound(context.Background(), op, obj, old)
		if fmt.Sprint(known) != fmt.Sprint(errs) {
			return nil, fmt.Errorf("an update of what is known to be valid is told %v, and %v of what is not", known, errs)
		}
	}
	return errs, nil
}

// changed is obj after the patches; for a view they are made in its form.
func (k *ruleKind) changed(obj runtime.Object, position string, patches ...string) (runtime.Object, error) {
	out := k.empty()
	if k.view != nil {
		var err error
		if obj, err = k.view.To(obj); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	var node any
	if err := json.Unmarshal(data, &node); err != nil {
		return nil, err
	}
	for _, p := range patches {
		if node, err = applyPatch(node, position, p); err != nil {
			return nil, err
		}
	}
	if data, err = json.Marshal(node); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(out); err != nil {
		return nil, fmt.Errorf("after {%s}: %w", strings.Join(patches, ", "), err)
	}
	if k.view != nil {
		return k.view.From(out)
	}
	return out, nil
}
