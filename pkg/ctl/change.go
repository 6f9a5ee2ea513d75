package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/yaml"
)

// changing is what verbs that change existing objects share.
type changing struct {
	*tool
	files         files
	all           bool
	allNamespaces bool
	labels        string
	fields        string
	manager       string
	dry           dryRun
	printing      *printing
}

// newChanging adds the common flags.
func (t *tool) newChanging(cmd *cobra.Command, selectors bool) *changing {
	o := &changing{tool: t}
	o.files.add(cmd, "of the objects to change")
	f := cmd.Flags()
	f.StringVar(&o.manager, "field-manager", managerEdit, "name under which the changed fields are owned")
	if selectors {
		f.BoolVar(&o.all, "all", false, "all objects of the type")
		f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "in all namespaces")
		f.StringVarP(&o.labels, "selector", "l", "", "objects with these labels")
		f.StringVar(&o.fields, "field-selector", "", "objects that this field selector matches")
	}
	addDryRun(cmd, &o.dry)
	o.printing = newPrinting(cmd)
	cmd.ValidArgsFunction = t.completeObjects
	return o
}

// visit calls fn for each object that is meant.
func (o *changing) visit(ctx context.Context, args []string, fn func(*resource.Info) error) error {
	if len(args) == 0 && !o.files.given() {
		return usagef("say which objects, as TYPE NAME, TYPE/NAME or -f FILE")
	}
	b, err := o.builder(o.allNamespaces)
	if err != nil {
		return err
	}
	if b, err = o.addFiles(b, &o.files); err != nil {
		return err
	}
	count := 0
	err = b.LabelSelectorParam(o.labels).FieldSelectorParam(o.fields).ResourceTypeOrNameArgs(o.all, args...).
		Flatten().Latest().Do().Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		count++
		return fn(info)
	})
	if err == nil && count == 0 {
		fmt.Fprintln(o.Err, "No resources found")
	}
	return err
}

// patch sends a patch of one object and prints what was done. An answer with
// the old resourceVersion is an object that was so already.
func (o *changing) patch(info *resource.Info, kind types.PatchType, data []byte, sub, done string) error {
	if o.dry == dryClient {
		return o.printing.print(o.tool, info.Object, done, o.dry)
	}
	before := info.ResourceVersion
	after, err := resource.NewHelper(info.Client, info.Mapping).DryRun(o.dry == dryServer).
		WithFieldManager(o.manager).WithSubresource(sub).Patch(info.Namespace, info.Name, kind, data, &metav1.PatchOptions{})
	if err != nil {
		return err
	}
	if m := accessor(after); m != nil && sub == "" && m.GetResourceVersion() == before && before != "" {
		done += " (no change)"
	}
	if sub != "" {
		after = info.Object // the answer may be of another kind, for example a Scale
	}
	return o.printing.print(o.tool, after, done, o.dry)
}

func (t *tool) label() *cobra.Command {
	return t.metadata("label", "labels", "labeled")
}

func (t *tool) annotate() *cobra.Command {
	return t.metadata("annotate", "annotations", "annotated")
}

// metadata makes the verbs that set keys of a map in metadata.
func (t *tool) metadata(verb, field, done string) *cobra.Command {
	var overwrite bool
	cmd := &cobra.Command{
		Use:     verb + " TYPE NAME... KEY=VALUE... KEY-...",
		Short:   fmt.Sprintf("Set %s of objects, or remove them with KEY-", field),
		Example: fmt.Sprintf("  ctl %s pod web-0 tier=front\n  ctl %[1]s nodes --all rack-", verb),
	}
	o := t.newChanging(cmd, true)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace values that are set already")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		objects, values, err := splitPairs(args)
		if err != nil {
			return err
		}
		if len(values) == 0 {
			return usagef("give at least one KEY=VALUE to set, or KEY- to remove")
		}
		return o.visit(cmd.Context(), objects, func(info *resource.Info) error {
			m := accessor(info.Object)
			have := m.GetLabels()
			if field == "annotations" {
				have = m.GetAnnotations()
			}
			for k, v := range values {
				if old, ok := have[k]; ok && v != nil && old != v && !overwrite {
					return fmt.Errorf("%s has %s=%s already: replace it with --overwrite", objectName(info), k, old)
				}
			}
			data, err := json.Marshal(map[string]any{"metadata": map[string]any{field: values}})
			if err != nil {
				return err
			}
			if removesOnly(values) {
				return o.patch(info, types.MergePatchType, data, "", "un"+done)
			}
			return o.patch(info, types.MergePatchType, data, "", done)
		})
	}
	return cmd
}

// splitPairs separates objects from KEY=VALUE and KEY-. The value nil removes.
func splitPairs(args []string) (objects []string, values map[string]any, err error) {
	values = map[string]any{}
	for _, a := range args {
		k, v, set := strings.Cut(a, "=")
		switch {
		case set:
			values[k] = v
		case strings.HasSuffix(a, "-") && len(a) > 1 && len(objects) > 0:
			values[strings.TrimSuffix(a, "-")] = nil
		case len(values) > 0:
			return nil, nil, usagef("%q comes after the first KEY=VALUE: name all objects before", a)
		default:
			objects = append(objects, a)
		}
	}
	return objects, values, nil
}

func removesOnly(values map[string]any) bool {
	for _, v := range values {
		if v != nil {
			return false
		}
	}
	return true
}

// patchTypes are the values of patch --type.
var patchTypes = []string{"strategic", "merge", "json"}

func (t *tool) patch() *cobra.Command {
	var text, file, kind, sub string
	cmd := &cobra.Command{
		Use:     "patch TYPE NAME -p PATCH",
		Short:   "Change fields of an object by a patch",
		Example: "  ctl patch deploy web -p '{\"spec\":{\"replicas\":3}}'\n  ctl patch node n1 --type=json -p '[{\"op\":\"remove\",\"path\":\"/metadata/labels/rack\"}]'",
	}
	o := t.newChanging(cmd, false)
	f := cmd.Flags()
	f.StringVarP(&text, "patch", "p", "", "the patch, in YAML or JSON")
	f.StringVar(&file, "patch-file", "", "file with the patch")
	f.StringVar(&kind, "type", "strategic", "strategic (lists are merged by key), merge (RFC 7386), or json (RFC 6902)")
	f.StringVar(&sub, "subresource", "", "change status or scale of the object")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(patchTypes, noFiles))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		data, err := patchData(text, file)
		if err != nil {
			return err
		}
		pt := map[string]types.PatchType{"strategic": types.StrategicMergePatchType, "merge": types.MergePatchType, "json": types.JSONPatchType}[kind]
		if pt == "" {
			return usagef("--type=%s is not known: use %s", kind, strings.Join(patchTypes, ", "))
		}
		return o.visit(cmd.Context(), args, func(info *resource.Info) error { return o.patch(info, pt, data, sub, "patched") })
	}
	return cmd
}

func patchData(text, file string) ([]byte, error) {
	if (text == "") == (file == "") {
		return nil, usagef("give the patch with -p PATCH or --patch-file FILE")
	}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the patch: %w", err)
		}
		text = string(data)
	}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the patch is neither YAML nor JSON: %w", err)
	}
	return data, nil
}

func (t *tool) scale() *cobra.Command {
	var replicas, current int32
	cmd := &cobra.Command{
		Use:     "scale TYPE/NAME... --replicas=N",
		Short:   "Set how many pods a workload has",
		Example: "  ctl scale deploy/web --replicas=3\n  ctl scale rs -l app=web --replicas=0",
	}
	o := t.newChanging(cmd, true)
	cmd.Flags().Int32Var(&replicas, "replicas", -1, "how many pods")
	cmd.Flags().Int32Var(&current, "current-replicas", -1, "change only what has this many now")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if replicas < 0 {
			return usagef("say how many with --replicas=N")
		}
		return o.visit(cmd.Context(), args, func(info *resource.Info) error {
			if current >= 0 {
				if n := replicasOf(info.Object); n != int64(current) {
					return fmt.Errorf("%s has %d replicas, not %d: it is left alone", objectName(info), n, current)
				}
			}
			data := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
			return o.patch(info, types.MergePatchType, data, "scale", "scaled")
		})
	}
	return cmd
}

// replicasOf reads spec.replicas of an untyped object; -1 when it has none.
func replicasOf(obj runtime.Object) int64 {
	n, ok := nested(obj, "spec", "replicas").(int64)
	if !ok {
		return -1
	}
	return n
}

// sortedKeys returns a map's keys in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
