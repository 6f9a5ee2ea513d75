package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes/scheme"
)

// creating is what all forms of create share.
type creating struct {
	*tool
	dry        dryRun
	validation string
	printing   *printing
}

func (t *tool) create() *cobra.Command {
	var in files
	o := &creating{tool: t}
	cmd := &cobra.Command{
		Use:     "create -f FILE",
		Short:   "Create objects from files, or one of the kinds below from flags",
		Example: "  ctl create -f app.yaml\n  ctl create deployment web --image=nginx --replicas=2 --dry-run=client -o yaml",
		Args:    between(0, 0, "no arguments, or one of the kinds that \"ctl create --help\" lists; other kinds come from -f"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.fromFiles(cmd.Context(), &in) },
	}
	in.add(cmd, "to create")
	cmd.Flags().StringVar(&o.validation, "validate", "Strict", "what to do about unknown and duplicate fields: Strict refuses, Warn warns, Ignore drops them")
	addDryRun(cmd, &o.dry)
	o.printing = newPrinting(cmd)
	cmd.AddCommand(t.createNamespace(), t.createConfigMap(), t.createSecret(), t.createDeployment(), t.createService(),
		t.createServiceAccount(), t.createToken(), t.createRole(), t.createClusterRole(),
		t.createRoleBinding(), t.createClusterRoleBinding())
	return cmd
}

func (o *creating) fromFiles(ctx context.Context, in *files) error {
	var err error
	if o.validation, err = validationOf(o.validation); err != nil {
		return err
	}
	if !in.given() {
		return usagef("say what to create with -f FILE, or name one of the kinds below (\"ctl create --help\")")
	}
	b, err := o.builder(false)
	if err != nil {
		return err
	}
	if b, err = o.addFiles(b, in); err != nil {
		return err
	}
	count := 0
	err = b.Flatten().Do().Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		count++
		if o.dry != dryClient {
			helper := resource.NewHelper(info.Client, info.Mapping).DryRun(o.dry == dryServer).
				WithFieldManager(managerCreate).WithFieldValidation(o.validation)
			made, err := helper.Create(info.Namespace, true, info.Object)
			if err != nil {
				return fmt.Errorf("%s %s: %w", objectName(info), sourceOf(info), err)
			}
			info.Object = made
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return o.printing.print(o.tool, info.Object, "created", o.dry)
	})
	if err == nil && count == 0 {
		return errors.New("there is no object in what was given to create")
	}
	return err
}

// generator is a command that makes one object from flags.
type generator struct {
	use, short, example string
	// namespaced says that the object lives in a namespace.
	namespaced bool
	// make makes the object, or says which flag is wrong.
	make func(ns, name string) (runtime.Object, error)
}

// generate makes the command of a generator.
func (t *tool) generate(g generator) *cobra.Command {
	o := &creating{tool: t}
	cmd := &cobra.Command{
		Use: g.use, Short: g.short, Example: g.example,
		Args: between(1, 1, "the name of the new object"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ns := ""
		if g.namespaced {
			var err error
			if ns, _, err = t.namespace(); err != nil {
				return err
			}
		}
		obj, err := g.make(ns, args[0])
		if err != nil {
			return err
		}
		return o.send(cmd.Context(), ns, obj)
	}
	addDryRun(cmd, &o.dry)
	o.printing = newPrinting(cmd)
	return cmd
}

// send creates a typed object and prints the outcome.
func (o *creating) send(ctx context.Context, ns string, obj runtime.Object) error {
	_, err := o.sendAs(ctx, ns, obj, "created")
	return err
}

// sendAs creates an object, prints what was done to it, and returns it as the
// server keeps it.
func (o *creating) sendAs(ctx context.Context, ns string, obj runtime.Object, done string) (*unstructured.Unstructured, error) {
	gvks, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(gvks[0])
	data, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: data}
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	if status, ok := u.Object["status"].(map[string]any); ok && emptyMap(status) {
		delete(u.Object, "status")
	}
	if o.dry == dryClient {
		return u, o.printing.print(o.tool, u, done, o.dry)
	}
	mapper, err := o.flags.ToRESTMapper()
	if err != nil {
		return nil, err
	}
	m, err := mapper.RESTMapping(gvks[0].GroupKind(), gvks[0].Version)
	if err != nil {
		return nil, err
	}
	d, err := o.dynamic()
	if err != nil {
		return nil, err
	}
	made, err := d.Resource(m.Resource).Namespace(ns).Create(ctx, u, metav1.CreateOptions{
		FieldManager: managerCreate, DryRun: o.dry.options(), FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return nil, err
	}
	return made, o.printing.print(o.tool, made, done, o.dry)
}

// emptyMap says whether there is nothing but empty maps in m.
func emptyMap(m map[string]any) bool {
	for _, v := range m {
		if inner, ok := v.(map[string]any); !ok || !emptyMap(inner) {
			return false
		}
	}
	return true
}

// pairs reads KEY=VALUE arguments.
func pairs(args []string, what string) (map[string]string, error) {
	out := make(map[string]string, len(args))
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, usagef("%s %q is not of the form key=value", what, a)
		}
		out[k] = v
	}
	return out, nil
}
