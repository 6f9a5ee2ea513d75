package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
)

// deleting is one run of delete.
type deleting struct {
	*tool
	files         files
	all           bool
	allNamespaces bool
	labels        string
	fields        string
	cascade       string
	force         bool
	now           bool
	grace         int
	ignoreMissing bool
	wait          bool
	timeout       time.Duration
	output        string
	dry           dryRun
}

func (t *tool) delete() *cobra.Command {
	o := &deleting{tool: t}
	cmd := &cobra.Command{
		Use:               "delete TYPE NAME... | TYPE/NAME... | TYPE -l SELECTOR | -f FILE",
		Short:             "Delete objects by name, selector or file",
		Example:           "  ctl delete pod web-0\n  ctl delete deploy,svc -l app=web\n  ctl delete -f app.yaml\n  ctl delete pods --all -n test",
		ValidArgsFunction: t.completeObjects,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	o.files.add(cmd, "of the objects to delete")
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "delete all objects of the type")
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "in all namespaces")
	f.StringVarP(&o.labels, "selector", "l", "", "label selector")
	f.StringVar(&o.fields, "field-selector", "", "field selector")
	f.StringVar(&o.cascade, "cascade", "background", "what happens to dependents: background, foreground (they go first), orphan (they stay)")
	f.BoolVar(&o.force, "force", false, "do not wait for pods to end: removes the objects at once, whether or not the containers are gone")
	f.BoolVar(&o.now, "now", false, "give pods one second to end")
	f.IntVar(&o.grace, "grace-period", -1, "seconds that pods get to end; below 0 for their own")
	f.BoolVar(&o.ignoreMissing, "ignore-not-found", false, "an object that does not exist is no error")
	f.BoolVar(&o.wait, "wait", true, "return when the objects are gone")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 means without limit")
	f.StringVarP(&o.output, "output", "o", "", "name prints the names alone")
	addDryRun(cmd, &o.dry)
	f.Lookup("cascade").NoOptDefVal = "background"
	return cmd
}

// options makes the request's options, or says which flags contradict.
func (o *deleting) options() (*metav1.DeleteOptions, error) {
	policy := metav1.DeletePropagationBackground
	switch o.cascade {
	case "background", "true":
	case "foreground":
		policy = metav1.DeletePropagationForeground
	case "orphan", "false":
		policy = metav1.DeletePropagationOrphan
	default:
		return nil, usagef("--cascade=%s is not known: use background, foreground or orphan", o.cascade)
	}
	opts := &metav1.DeleteOptions{PropagationPolicy: &policy, DryRun: o.dry.options()}
	grace := int64(o.grace)
	switch {
	case o.now && (o.force || o.grace >= 0):
		return nil, usagef("--now goes with neither --force nor --grace-period")
	case o.now:
		grace = 1
	case o.force && o.grace > 0:
		return nil, usagef("--force removes the object at once and goes with no --grace-period above 0")
	case o.force:
		grace = 0
	case o.grace == 0:
		return nil, usagef("--grace-period=0 removes the object whether or not its containers are gone: add --force to say so")
	}
	if grace >= 0 {
		opts.GracePeriodSeconds = &grace
	}
	return opts, nil
}

// deleted is an object that is on its way out.
type deleted struct {
	info *resource.Info
	uid  types.UID
}

func (o *deleting) run(ctx context.Context, args []string) error {
	opts, err := o.options()
	if err != nil {
		return err
	}
	r, err := o.find(args)
	if err != nil {
		return err
	}
	if o.force && o.dry == dryNone {
		fmt.Fprintln(o.Err, "Warning: the objects are removed at once; containers may go on running for a while")
	}
	var gone []deleted
	found := 0
	err = r.Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		found++
		d, err := o.one(info, opts)
		if err == nil && d != nil {
			gone = append(gone, *d)
		}
		return err
	})
	if err == nil && found == 0 && !o.ignoreMissing {
		fmt.Fprintln(o.Err, "No resources found")
	}
	if o.wait && o.dry == dryNone {
		err = errors.Join(err, o.await(ctx, gone))
	}
	return err
}

func (o *deleting) find(args []string) (*resource.Result, error) {
	if len(args) == 0 && !o.files.given() {
		return nil, usagef("say what to delete, for example \"ctl delete pod web-0\", or -f FILE")
	}
	if o.all && (o.labels != "" || o.fields != "") {
		return nil, usagef("--all goes with no selector")
	}
	b, err := o.builder(o.allNamespaces)
	if err != nil {
		return nil, err
	}
	if b, err = o.addFiles(b, &o.files); err != nil {
		return nil, err
	}
	r := b.LabelSelectorParam(o.labels).FieldSelectorParam(o.fields).SelectAllParam(o.all).
		ResourceTypeOrNameArgs(false, args...).RequireObject(false).Flatten().Do()
	if o.ignoreMissing || o.all || o.labels != "" {
		r = r.IgnoreErrors(apierrors.IsNotFound)
	}
	return r, r.Err()
}

// one deletes an object and says so.
func (o *deleting) one(info *resource.Info, opts *metav1.DeleteOptions) (*deleted, error) {
	d := &deleted{info: info}
	if o.dry != dryClient {
		answer, err := resource.NewHelper(info.Client, info.Mapping).DeleteWithOptions(info.Namespace, info.Name, opts)
		if apierrors.IsNotFound(err) && (o.ignoreMissing || o.all || o.labels != "") {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		d.uid = uidOf(answer)
	}
	what := "deleted"
	if o.force {
		what = "force deleted"
	}
	if o.output == "name" {
		fmt.Fprintln(o.Out, objectName(info))
		return d, nil
	}
	fmt.Fprintf(o.Out, "%s %q %s%s%s\n", kindName(info.Mapping), info.Name, what, inNamespace(info), o.dry.suffix())
	return d, nil
}

func inNamespace(info *resource.Info) string {
	if info.Namespaced() {
		return " from namespace " + info.Namespace
	}
	return ""
}

// uidOf reads the UID of what the server answered: the object, or a Status
// with its details.
func uidOf(answer any) types.UID {
	switch a := answer.(type) {
	case *metav1.Status:
		if a.Details != nil {
			return a.Details.UID
		}
	case metav1.Object:
		if u, ok := a.(interface{ GetKind() string }); ok && u.GetKind() == "Status" {
			return statusUID(answer)
		}
		return a.GetUID()
	}
	return ""
}

// await returns when all the objects are gone, or replaced by ones of the
// same name.
func (o *deleting) await(ctx context.Context, gone []deleted) error {
	ctx, cancel := limited(ctx, o.timeout)
	defer cancel()
	var errs []error
	for _, d := range gone {
		err := o.awaitObject(ctx, d.info, func(obj metav1.Object) (bool, error) {
			return obj == nil || d.uid != "" && obj.GetUID() != d.uid, nil
		})
		if errors.Is(err, errWaited) {
			err = fmt.Errorf("%s is not gone after %s: what holds it is in its metadata.finalizers, or its containers are still ending", objectName(d.info), o.timeout)
		}
		if apierrors.IsForbidden(err) {
			err = nil // who may delete need not be allowed to look
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// errWaited is the cause when a user's time limit is over.
var errWaited = errors.New("timed out waiting")

// accessor returns the metadata of an object, or nil.
func accessor(obj any) metav1.Object {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	return m
}
