package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/liggitt/tabwriter"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/cli-runtime/pkg/resource"
)

// tables prints what the server has formatted, one table for each type.
func (o *getting) tables(r *resource.Result) error {
	infos, err := r.Infos()
	if err != nil && len(infos) == 0 {
		return err
	}
	groups := groupByType(infos)
	printed := 0
	for _, g := range groups {
		t, tableErr := joinTables(g)
		if tableErr != nil {
			return errors.Join(err, tableErr)
		}
		if o.sortBy != "" {
			if err := sortRows(t, o.sortBy); err != nil {
				return err
			}
		}
		if len(t.Rows) == 0 {
			continue
		}
		if printed > 0 {
			fmt.Fprintln(o.Out)
		}
		printed += len(t.Rows)
		w := printers.GetNewTabWriter(escaper{o.Out})
		p := o.tablePrinter(g[0].Mapping, len(groups) > 1)
		if err := errors.Join(p.PrintObj(t, w), w.Flush()); err != nil {
			return err
		}
	}
	if printed == 0 && err == nil && !o.ignoreMissing {
		o.nothing(infos)
	}
	return err
}

// nothing says where there is nothing.
func (o *getting) nothing(infos []*resource.Info) {
	namespaced := len(infos) == 0
	for _, info := range infos {
		namespaced = namespaced || info.Namespaced()
	}
	ns, _, err := o.namespace()
	if o.all || !namespaced || err != nil {
		fmt.Fprintln(o.Err, "No resources found")
		return
	}
	fmt.Fprintf(o.Err, "No resources found in %s namespace.\n", ns)
}

// tablePrinter makes the printer of one type's table.
func (o *getting) tablePrinter(m *meta.RESTMapping, withKind bool) printers.ResourcePrinter {
	opts := printers.PrintOptions{
		NoHeaders: o.noHeaders, Wide: o.output == "wide", ShowLabels: o.showLabels, ColumnLabels: o.labelColumns,
		WithKind: o.showKind || withKind,
	}
	if m != nil {
		opts.WithNamespace = o.all && m.Scope.Name() == meta.RESTScopeNameNamespace
		opts.Kind = schema.GroupKind{Group: m.Resource.Group, Kind: m.GroupVersionKind.Kind}
	}
	return printers.NewTablePrinter(opts)
}

// groupByType joins neighbours of one type.
func groupByType(infos []*resource.Info) [][]*resource.Info {
	var out [][]*resource.Info
	for i, info := range infos {
		if i > 0 && info.Mapping != nil && infos[i-1].Mapping != nil && info.Mapping.Resource == infos[i-1].Mapping.Resource {
			out[len(out)-1] = append(out[len(out)-1], info)
			continue
		}
		out = append(out, []*resource.Info{info})
	}
	return out
}

// joinTables makes one table of the answers for one type: one for each name,
// or for each part of a list.
func joinTables(infos []*resource.Info) (*metav1.Table, error) {
	out := &metav1.Table{}
	for _, info := range infos {
		t, err := toTable(info.Object)
		if err != nil {
			return nil, err
		}
		if len(t.ColumnDefinitions) > 0 {
			out.ColumnDefinitions = t.ColumnDefinitions
		}
		out.Rows = append(out.Rows, t.Rows...)
	}
	return out, nil
}

// toTable reads the server's table. An object from a server that makes no
// tables for its kind becomes a row of name and age.
func toTable(obj runtime.Object) (*metav1.Table, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("the server answered with a %T instead of a table", obj)
	}
	if u.GetKind() != "Table" {
		return plainTable(u), nil
	}
	t := &metav1.Table{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, t); err != nil {
		return nil, fmt.Errorf("read the server's table: %w", err)
	}
	for i := range t.Rows {
		if raw := t.Rows[i].Object.Raw; len(raw) > 0 {
			row := &unstructured.Unstructured{}
			if err := row.UnmarshalJSON(raw); err != nil {
				return nil, fmt.Errorf("read the object of a row: %w", err)
			}
			t.Rows[i].Object.Object = row
		}
	}
	return t, nil
}

func plainTable(u *unstructured.Unstructured) *metav1.Table {
	return &metav1.Table{
		ColumnDefinitions: []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name"}, {Name: "Age", Type: "string"}},
		Rows:              []metav1.TableRow{{Cells: []any{u.GetName(), age(u.GetCreationTimestamp().Time, time.Now())}, Object: runtime.RawExtension{Object: u}}},
	}
}

// follow shows the state and then each change, until the user ends it.
func (o *getting) follow(ctx context.Context, args []string, p printers.ResourcePrinter) error {
	table := p == nil
	r, err := o.find(args, table)
	if err != nil {
		return err
	}
	if o.sortBy != "" {
		return usagef("--sort-by does not go with --watch: changes come in their own order")
	}
	m, err := r.ResourceMapping()
	if err != nil {
		return fmt.Errorf("only one type can be watched at a time: %w", err)
	}
	var w *tabwriter.Writer
	if table {
		p, w = o.tablePrinter(m, false), printers.GetNewTabWriter(escaper{o.Out})
	}
	show := func(kind watch.EventType, obj runtime.Object) error { return o.event(p, w, kind, obj) }
	version, err := o.firstState(r, show)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if version, err = o.changes(ctx, r, version, show); err != nil {
			return err
		}
	}
	return nil
}

// firstState prints what is there and returns its revision.
func (o *getting) firstState(r *resource.Result, show func(watch.EventType, runtime.Object) error) (string, error) {
	obj, err := r.Object()
	if err != nil {
		return "", err
	}
	version, err := meta.NewAccessor().ResourceVersion(obj)
	if err != nil {
		return "", fmt.Errorf("read the revision of the list: %w", err)
	}
	infos, err := r.Infos()
	if err != nil {
		return "", err
	}
	for _, info := range infos {
		if o.watchOnly {
			continue
		}
		if err := show(watch.Added, info.Object); err != nil {
			return "", err
		}
	}
	return version, nil
}

// changes prints events until the watch ends, and returns the revision from
// which the next one goes on.
func (o *getting) changes(ctx context.Context, r *resource.Result, version string, show func(watch.EventType, runtime.Object) error) (string, error) {
	w, err := r.Watch(version)
	if err != nil {
		return version, err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return version, nil
		case e, ok := <-w.ResultChan():
			switch {
			case !ok:
				return version, nil
			case e.Type == watch.Error:
				return version, apierrors.FromObject(e.Object)
			case e.Type == watch.Bookmark:
				continue
			}
			if err := show(e.Type, e.Object); err != nil {
				return version, err
			}
			if v := revision(e.Object); v != "" {
				version = v
			}
		}
	}
}

// revision is that of an object, or of the object in a row.
func revision(obj runtime.Object) string {
	if t, err := toTable(obj); err == nil {
		for _, row := range t.Rows {
			if m, err := meta.Accessor(row.Object.Object); err == nil {
				return m.GetResourceVersion()
			}
		}
	}
	return ""
}

// event prints one object, or a table's part.
func (o *getting) event(p printers.ResourcePrinter, w *tabwriter.Writer, kind watch.EventType, obj runtime.Object) error {
	if w == nil {
		if o.events {
			obj = &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Object: obj}}
		}
		return p.PrintObj(obj, o.Out)
	}
	t, err := toTable(obj)
	if err != nil {
		return err
	}
	if o.events {
		return errors.Join(p.PrintObj(&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Object: t}}, w), w.Flush())
	}
	return errors.Join(p.PrintObj(t, w), w.Flush())
}

// trimPath takes the braces off a JSON path, for messages.
func trimPath(path string) string { return strings.Trim(path, "{}") }
