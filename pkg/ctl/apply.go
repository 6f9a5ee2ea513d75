package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/util/csaupgrade"
)

// applying is one run of apply.
type applying struct {
	*tool
	files      files
	labels     string
	force      bool
	manager    string
	validation string
	dry        dryRun
	serverSide bool
	printing   *printing
}

func (t *tool) apply() *cobra.Command {
	o := &applying{tool: t}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make objects be as the files say",
		Long: "Make objects be as the files say: create those that do not exist, and set the fields of the others that the files name.\n\n" +
			"Apply is server-side: the server knows which fields the files have set, and takes those back that are in the files no more. A field that somebody else has set to another value is a conflict, and is left alone unless --force-conflicts is given.",
		Example: "  ctl apply -f app.yaml\n  ctl apply -R -f manifests/\n  ctl apply -k overlays/test\n  cat app.yaml | ctl apply -f -",
		Args:    between(0, 0, "no arguments: objects come from -f or -k"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.files.add(cmd, "to apply")
	f := cmd.Flags()
	f.StringVarP(&o.labels, "selector", "l", "", "apply only the objects with these labels")
	f.BoolVar(&o.force, "force-conflicts", false, "take over fields that others have set")
	f.StringVar(&o.manager, "field-manager", managerApply, "name under which fields are owned")
	f.StringVar(&o.validation, "validate", "Strict", "what to do about duplicate fields: Strict refuses, Warn warns, Ignore takes the last; unknown fields are always refused")
	f.BoolVar(&o.serverSide, "server-side", true, "accepted for compatibility: apply is always server-side")
	_ = f.MarkHidden("server-side")
	addDryRun(cmd, &o.dry)
	o.printing = newPrinting(cmd)
	return cmd
}

// validationOf accepts the spellings of --validate.
func validationOf(value string) (string, error) {
	switch value {
	case "Strict", "strict", "true":
		return metav1.FieldValidationStrict, nil
	case "Warn", "warn":
		return metav1.FieldValidationWarn, nil
	case "Ignore", "ignore", "false":
		return metav1.FieldValidationIgnore, nil
	}
	return "", usagef("--validate=%s is not known: use Strict, Warn or Ignore", value)
}

func (o *applying) run(ctx context.Context) error {
	var err error
	if o.validation, err = validationOf(o.validation); err != nil {
		return err
	}
	if !o.serverSide {
		return usagef("--server-side=false is not offered: the server merges, so that nobody's fields are lost")
	}
	if !o.files.given() {
		return usagef("say what to apply with -f FILE, -f - or -k FOLDER")
	}
	b, err := o.builder(false)
	if err != nil {
		return err
	}
	if b, err = o.addFiles(b, &o.files); err != nil {
		return err
	}
	count := 0
	err = b.LabelSelectorParam(o.labels).Flatten().Do().Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		count++
		return o.one(info)
	})
	if err == nil && count == 0 {
		return errors.New("there is no object in what was given to apply")
	}
	return err
}

// one applies one object and says what that did.
func (o *applying) one(info *resource.Info) error {
	obj, ok := info.Object.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("%s: not an object", info.Source)
	}
	if obj.GetName() == "" {
		return fmt.Errorf("%s: a %s without metadata.name cannot be applied: use \"ctl create\" for metadata.generateName", info.Source, obj.GetKind())
	}
	obj.SetManagedFields(nil) // of "get -o yaml --show-managed-fields"
	obj.SetResourceVersion("")
	if o.dry == dryClient {
		return o.printing.print(o.tool, obj, "applied", o.dry)
	}
	data, err := runtime.Encode(unstructured.UnstructuredJSONScheme, obj)
	if err != nil {
		return fmt.Errorf("%s: %w", info.Source, err)
	}
	helper := resource.NewHelper(info.Client, info.Mapping).DryRun(o.dry == dryServer).
		WithFieldManager(o.manager).WithFieldValidation(o.validation)
	before, err := o.before(helper, info)
	if err != nil {
		return err
	}
	after, err := helper.Patch(info.Namespace, info.Name, types.ApplyPatchType, data, &metav1.PatchOptions{Force: &o.force})
	if err != nil {
		return fmt.Errorf("%s %s: %w", objectName(info), sourceOf(info), err)
	}
	return o.printing.print(o.tool, after, o.outcome(before, after), o.dry)
}

// before returns the object as it is, or nil when there is none. Fields that
// client-side apply or "ctl create" have set, or anything but apply under this
// manager's name, become apply's own.
func (o *applying) before(helper *resource.Helper, info *resource.Info) (runtime.Object, error) {
	live, err := helper.Get(info.Namespace, info.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", objectName(info), err)
	}
	if o.dry == dryServer {
		return live, nil
	}
	managers := sets.New("kubectl-client-side-apply", managerCreate, o.manager)
	patch, err := csaupgrade.UpgradeManagedFieldsPatch(live, managers, o.manager)
	if err != nil || patch == nil {
		return live, err
	}
	migrated, err := helper.Patch(info.Namespace, info.Name, types.JSONPatchType, patch, &metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		return live, nil // somebody was faster; the apply itself decides
	}
	if err != nil {
		return nil, fmt.Errorf("%s: take over the fields of earlier commands: %w", objectName(info), err)
	}
	return migrated, nil
}

// outcome is what an apply did.
func (o *applying) outcome(before, after runtime.Object) string {
	if before == nil {
		return "created"
	}
	b, bErr := meta.Accessor(before)
	a, aErr := meta.Accessor(after)
	if bErr == nil && aErr == nil && a.GetResourceVersion() == b.GetResourceVersion() {
		return "unchanged"
	}
	return "configured"
}

// objectName is TYPE/NAME as commands take it.
func objectName(info *resource.Info) string {
	if info.Mapping == nil {
		return info.Name
	}
	return kindName(info.Mapping) + "/" + info.Name
}

// kindName is the kind as it is printed: lower case and with its group.
func kindName(m *meta.RESTMapping) string {
	return schema.GroupKind{Group: m.GroupVersionKind.Group, Kind: strings.ToLower(m.GroupVersionKind.Kind)}.String()
}

// sourceOf says where an object came from, for messages.
func sourceOf(info *resource.Info) string {
	if info.Source == "" {
		return "was refused"
	}
	return "from " + info.Source + " was refused"
}
