package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/yaml"
)

// nested reads a field of an untyped object, nil when it is not there.
func nested(obj runtime.Object, path ...string) any {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	v, found, err := unstructured.NestedFieldNoCopy(u.Object, path...)
	if err != nil || !found {
		return nil
	}
	return v
}

func (t *tool) edit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "edit TYPE NAME",
		Short: "Change an object in an editor ($KUBE_EDITOR, $EDITOR or vi)",
	}
	o := t.newChanging(cmd, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.visit(cmd.Context(), args, func(info *resource.Info) error { return o.edit(cmd.Context(), info) })
	}
	return cmd
}

// edit has the user edit one object and replaces it. The resourceVersion stays
// in, so that nobody's change in the meantime is lost. After an error the text
// stays in its file.
func (o *changing) edit(ctx context.Context, info *resource.Info) error {
	obj, ok := info.Object.DeepCopyObject().(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("the server answered with a %T", info.Object)
	}
	obj.SetManagedFields(nil)
	before, err := yaml.Marshal(obj.Object)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ctl-edit-")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, info.Name+".yaml")
	if err := os.WriteFile(file, before, 0o600); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	after, err := o.runEditor(ctx, file)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if bytes.Equal(before, after) {
		fmt.Fprintln(o.Err, "Edit cancelled: nothing was changed")
		return os.RemoveAll(dir)
	}
	var changed map[string]any
	if err := yaml.Unmarshal(after, &changed); err != nil {
		return fmt.Errorf("the text is no YAML: %w; it is kept in %s", err, file)
	}
	made, err := resource.NewHelper(info.Client, info.Mapping).DryRun(o.dry == dryServer).WithFieldManager(o.manager).
		WithFieldValidation("Strict").Replace(info.Namespace, info.Name, false, &unstructured.Unstructured{Object: changed})
	if err != nil {
		return fmt.Errorf("%w; the text is kept in %s", err, file)
	}
	return errors.Join(os.RemoveAll(dir), o.printing.print(o.tool, made, "edited", o.dry))
}

// runEditor opens the file in the user's editor and returns its new content.
func (o *changing) runEditor(ctx context.Context, file string) ([]byte, error) {
	editor := "vi"
	for _, name := range []string{"EDITOR", "KUBE_EDITOR"} {
		if v := os.Getenv(name); v != "" {
			editor = v
		}
	}
	// The variable may hold arguments, so a shell takes it apart.
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "editor", file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.In, o.Out, o.Err
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the editor %q failed (choose another with $EDITOR): %w", editor, err)
	}
	return os.ReadFile(file)
}
