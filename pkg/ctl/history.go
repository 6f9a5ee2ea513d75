package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/yaml"
)

const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	changeCause        = "kubernetes.io/change-cause"
)

// step is one revision of a workload.
type step struct {
	revision int64
	cause    string
	template *corev1.PodTemplateSpec // of a Deployment
	raw      []byte                  // the patch of a ControllerRevision
}

// steps lists the revisions that are kept, the oldest first.
func (t *tool) steps(ctx context.Context, info *resource.Info) ([]step, error) {
	client, err := t.client()
	if err != nil {
		return nil, err
	}
	uid := accessor(info.Object).GetUID()
	var out []step
	switch kind := info.Mapping.GroupVersionKind.Kind; kind {
	case "Deployment":
		sets, err := client.AppsV1().ReplicaSets(info.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, rs := range sets.Items {
			if o := metav1.GetControllerOf(&rs); o == nil || o.UID != uid {
				continue
			}
			n, err := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
			if err != nil {
				continue // not yet numbered
			}
			out = append(out, step{revision: n, cause: rs.Annotations[changeCause], template: &rs.Spec.Template})
		}
	case "StatefulSet", "DaemonSet":
		list, err := client.AppsV1().ControllerRevisions(info.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, cr := range list.Items {
			if o := metav1.GetControllerOf(&cr); o != nil && o.UID == uid {
				out = append(out, revisionStep(&cr))
			}
		}
	default:
		return nil, fmt.Errorf("a %s has no history: use a Deployment, StatefulSet or DaemonSet", kind)
	}
	slices.SortFunc(out, func(a, b step) int { return int(a.revision - b.revision) })
	return out, nil
}

func revisionStep(cr *appsv1.ControllerRevision) step {
	s := step{revision: cr.Revision, cause: cr.Annotations[changeCause], raw: cr.Data.Raw}
	var patch struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if json.Unmarshal(cr.Data.Raw, &patch) == nil {
		s.template = &patch.Spec.Template
	}
	return s
}

func (t *tool) rolloutHistory() *cobra.Command {
	var revision int64
	cmd := &cobra.Command{Use: "history TYPE/NAME", Short: "List the revisions of a workload, or show one"}
	o := t.newChanging(cmd, true)
	cmd.Flags().Int64Var(&revision, "revision", 0, "show the pod template of this revision")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.visit(cmd.Context(), args, func(info *resource.Info) error {
			steps, err := o.steps(cmd.Context(), info)
			if err != nil {
				return err
			}
			if revision > 0 {
				return o.showRevision(info, steps, revision)
			}
			fmt.Fprintln(o.Out, objectName(info))
			w := o.table()
			fmt.Fprintln(w, "REVISION\tCHANGE-CAUSE")
			for _, s := range steps {
				cause := s.cause
				if cause == "" {
					cause = "<none>"
				}
				fmt.Fprintf(w, "%d\t%s\n", s.revision, cause)
			}
			return w.Flush()
		})
	}
	return cmd
}

func (o *changing) showRevision(info *resource.Info, steps []step, revision int64) error {
	for _, s := range steps {
		if s.revision != revision || s.template == nil {
			continue
		}
		text, err := yaml.Marshal(s.template)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Out, "%s with revision #%d\n", objectName(info), revision)
		_, err = escaper{o.Out}.Write(text)
		return err
	}
	return noRevision(info, revision)
}

func noRevision(info *resource.Info, revision int64) error {
	return fmt.Errorf("%s has no revision %d: \"ctl rollout history\" lists those that are kept", objectName(info), revision)
}

func (t *tool) rolloutUndo() *cobra.Command {
	var revision int64
	cmd := &cobra.Command{Use: "undo TYPE/NAME", Short: "Go back to the revision before, or to a given one"}
	o := t.newChanging(cmd, true)
	cmd.Flags().Int64Var(&revision, "to-revision", 0, "revision to go back to; 0 for the one before")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.visit(cmd.Context(), args, func(info *resource.Info) error {
			steps, err := o.steps(cmd.Context(), info)
			if err != nil {
				return err
			}
			if paused, _ := nested(info.Object, "spec", "paused").(bool); paused {
				return fmt.Errorf("%s is paused: resume it first with \"ctl rollout resume\"", objectName(info))
			}
			return o.undo(info, steps, revision)
		})
	}
	return cmd
}

// undo puts the pod template of a revision into the workload.
func (o *changing) undo(info *resource.Info, steps []step, revision int64) error {
	var to *step
	switch {
	case revision > 0:
		i := slices.IndexFunc(steps, func(s step) bool { return s.revision == revision })
		if i < 0 {
			return noRevision(info, revision)
		}
		to = &steps[i]
	case len(steps) < 2:
		return fmt.Errorf("%s has no earlier revision to go back to", objectName(info))
	default:
		to = &steps[len(steps)-2]
	}
	if to.raw != nil {
		return o.patch(info, types.StrategicMergePatchType, to.raw, "", "rolled back")
	}
	if to.template == nil {
		return errors.New("the revision holds no pod template")
	}
	template := to.template.DeepCopy()
	delete(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	data, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec/template", "value": template}})
	if err != nil {
		return err
	}
	return o.patch(info, types.JSONPatchType, data, "", "rolled back")
}
