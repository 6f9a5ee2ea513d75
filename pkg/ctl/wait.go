package ctl

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/util/jsonpath"
)

// goal is what wait waits for. It is called with nil when there is no object.
type goal struct {
	met  func(*unstructured.Unstructured) bool
	gone bool // the goal is that the object is deleted
	made bool // the goal is that the object exists
}

func (t *tool) wait() *cobra.Command {
	var what string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait TYPE/NAME... --for=condition=TYPE|delete|create|jsonpath=PATH=VALUE",
		Short: "Wait until objects are as wanted",
		Example: "  ctl wait pod/web-0 --for=condition=Ready\n  ctl wait pods -l app=web --for=delete --timeout=60s\n" +
			"  ctl wait job/x --for=jsonpath='{.status.succeeded}'=1",
	}
	o := t.newChanging(cmd, true)
	cmd.Flags().StringVar(&what, "for", "", "condition=TYPE[=VALUE], delete, create, or jsonpath={.path}[=VALUE]")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for each object; 0 looks once, below 0 means a week")
	for _, name := range []string{"dry-run", "field-manager"} {
		_ = cmd.Flags().MarkHidden(name)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		g, err := parseGoal(what)
		if err != nil {
			return err
		}
		return o.wait(cmd.Context(), args, g, what, timeout)
	}
	return cmd
}

// parseGoal reads --for.
func parseGoal(what string) (*goal, error) {
	kind, rest, _ := strings.Cut(what, "=")
	switch kind {
	case "delete":
		return &goal{gone: true}, nil
	case "create":
		return &goal{made: true, met: func(*unstructured.Unstructured) bool { return true }}, nil
	case "condition":
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			value = "True"
		}
		return &goal{met: func(u *unstructured.Unstructured) bool { return hasCondition(u, name, value) }}, nil
	case "jsonpath":
		path, value, ok := cutPath(rest)
		p, err := relaxedPath("for", path)
		if err != nil {
			return nil, err
		}
		return &goal{met: func(u *unstructured.Unstructured) bool { return pathHolds(p, u, value, ok) }}, nil
	}
	return nil, usagef("say what to wait for: --for=condition=Ready, --for=delete, --for=create or --for=jsonpath='{.status.phase}'=Running")
}

// cutPath separates {.path}=VALUE; the path may hold "=" inside its braces.
func cutPath(s string) (path, value string, hasValue bool) {
	if i := strings.LastIndex(s, "}"); i >= 0 {
		rest, ok := strings.CutPrefix(s[i+1:], "=")
		return s[:i+1], strings.Trim(rest, `"'`), ok
	}
	return strings.Cut(s, "=")
}

func hasCondition(u *unstructured.Unstructured, name, value string) bool {
	conditions, _ := nested(u, "status", "conditions").([]any)
	for _, c := range conditions {
		m, _ := c.(map[string]any)
		kind, _ := m["type"].(string)
		status, _ := m["status"].(string)
		if !strings.EqualFold(kind, name) {
			continue
		}
		// A condition about an older generation says nothing of this one.
		if seen, ok := m["observedGeneration"].(int64); ok && seen < u.GetGeneration() {
			return false
		}
		if seen, ok := nested(u, "status", "observedGeneration").(int64); ok && seen < u.GetGeneration() {
			return false
		}
		return strings.EqualFold(status, value)
	}
	return false
}

// pathHolds says whether the path finds the value, or anything without one.
func pathHolds(p *jsonpath.JSONPath, u *unstructured.Unstructured, value string, hasValue bool) bool {
	found, err := p.FindResults(u.Object)
	if err != nil || len(found) == 0 || len(found[0]) == 0 {
		return false
	}
	for _, v := range found[0] {
		if v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		if !v.IsValid() || hasValue && strings.TrimSpace(fmt.Sprint(v.Interface())) != value {
			return false
		}
	}
	return true
}

func (o *changing) wait(ctx context.Context, args []string, g *goal, what string, timeout time.Duration) error {
	if timeout == 0 {
		timeout = time.Nanosecond // one look
	}
	if g.made {
		if err := o.awaitCreation(ctx, args, timeout); err != nil {
			return err
		}
	}
	err := o.visit(ctx, args, func(info *resource.Info) error { return o.waitFor(ctx, info, g, what, timeout) })
	if g.gone && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// awaitCreation returns when what the arguments name can be found.
func (o *changing) awaitCreation(ctx context.Context, args []string, timeout time.Duration) error {
	ctx, cancel := limited(ctx, timeout)
	defer cancel()
	for {
		b, err := o.builder(o.allNamespaces)
		if err != nil {
			return err
		}
		infos, err := b.LabelSelectorParam(o.labels).ResourceTypeOrNameArgs(o.all, args...).Flatten().Latest().Do().Infos()
		if err == nil && len(infos) > 0 {
			return nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to be created: %w", strings.Join(args, " "), context.Cause(ctx))
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func (o *changing) waitFor(ctx context.Context, info *resource.Info, g *goal, what string, timeout time.Duration) error {
	uid := accessor(info.Object).GetUID()
	// The first look is at what the server just answered.
	if u, ok := info.Object.(*unstructured.Unstructured); ok && !g.gone && g.met(u) {
		return o.printing.print(o.tool, info.Object, "condition met", dryNone)
	}
	ctx, cancel := limited(ctx, timeout)
	defer cancel()
	err := o.awaitObject(ctx, info, func(obj metav1.Object) (bool, error) {
		u, ok := obj.(*unstructured.Unstructured)
		if g.gone {
			return !ok || u.GetUID() != uid, nil
		}
		if !ok {
			return false, fmt.Errorf("%s was deleted while waiting for %s", objectName(info), what)
		}
		return g.met(u), nil
	})
	if errors.Is(err, errWaited) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w for %s on %s", errWaited, what, objectName(info))
	}
	if err != nil {
		return err
	}
	return o.printing.print(o.tool, info.Object, "condition met", dryNone)
}
