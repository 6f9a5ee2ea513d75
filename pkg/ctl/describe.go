package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"
)

// page is one description being written: lines of "Name: value", indented, of
// which neighbours are aligned.
type page struct {
	w      *tabwriter.Writer
	indent int
	now    time.Time
	client kubernetes.Interface
	ctx    context.Context // of the command; for the few describers that ask for more
}

func newPage(ctx context.Context, out io.Writer, client kubernetes.Interface, now time.Time) *page {
	return &page{w: tabwriter.NewWriter(escaper{out}, 0, 8, 2, ' ', 0), now: now, client: client, ctx: ctx}
}

// line writes "Name: value".
func (p *page) line(name string, value any) {
	text := fmt.Sprint(value)
	if text == "" {
		text = "<none>"
	}
	fmt.Fprintf(p.w, "%s%s:\t%s\n", strings.Repeat("  ", p.indent), name, text)
}

// text writes a line that is not aligned.
func (p *page) text(format string, args ...any) {
	fmt.Fprintf(p.w, "%s%s\n", strings.Repeat("  ", p.indent), fmt.Sprintf(format, args...))
}

// section writes "Name:" and what fn writes, indented.
func (p *page) section(name string, fn func()) {
	p.text("%s:", name)
	p.indent++
	fn()
	p.indent--
}

// set writes a map, one pair a line, the name before the first.
func (p *page) set(name string, m map[string]string) {
	if len(m) == 0 {
		p.line(name, "<none>")
		return
	}
	for i, k := range sortedKeys(m) {
		if i == 0 {
			p.line(name, k+"="+firstLine(m[k]))
			continue
		}
		fmt.Fprintf(p.w, "%s\t%s\n", strings.Repeat("  ", p.indent), k+"="+firstLine(m[k]))
	}
}

// list writes values, one a line, the name before the first.
func (p *page) list(name string, values []string) {
	if len(values) == 0 {
		p.line(name, "<none>")
		return
	}
	p.line(name, values[0])
	for _, v := range values[1:] {
		fmt.Fprintf(p.w, "%s\t%s\n", strings.Repeat("  ", p.indent), v)
	}
}

// table writes rows of cells under headers.
func (p *page) table(headers []string, rows [][]string) {
	pad := strings.Repeat("  ", p.indent)
	under := make([]string, len(headers))
	for i, h := range headers {
		under[i] = strings.Repeat("-", len(h))
	}
	fmt.Fprintf(p.w, "%s%s\n%s%s\n", pad, strings.Join(headers, "\t"), pad, strings.Join(under, "\t"))
	for _, r := range rows {
		fmt.Fprintf(p.w, "%s%s\n", pad, strings.Join(r, "\t"))
	}
}

func firstLine(s string) string {
	line, _, more := strings.Cut(s, "\n")
	if more || len(line) > 140 {
		return line[:min(len(line), 140)] + "..."
	}
	return line
}

// describer writes what is particular to a kind.
type describer func(*page, runtime.Object) error

// describers by kind; all else is described from its fields.
func describers() map[string]describer {
	return map[string]describer{
		"Pod": describePod, "Node": describeNode, "Deployment": describeDeployment, "ReplicaSet": describeReplicaSet,
		"Service": describeService, "Namespace": describeNamespace, "ConfigMap": describeConfigMap,
		"Secret": describeSecret, "ServiceAccount": describeServiceAccount, "Event": describeEvent,
	}
}

func (t *tool) describe() *cobra.Command {
	var in files
	var all bool
	var selector string
	var events bool
	cmd := &cobra.Command{
		Use:               "describe TYPE [NAME...] | TYPE/NAME | -f FILE",
		Short:             "Show all about objects, with what happened to them",
		Example:           "  ctl describe pod web-0\n  ctl describe deploy -l app=web",
		ValidArgsFunction: t.completeObjects,
	}
	in.add(cmd, "of the objects to describe")
	f := cmd.Flags()
	f.BoolVarP(&all, "all-namespaces", "A", false, "in all namespaces")
	f.StringVarP(&selector, "selector", "l", "", "label selector")
	f.BoolVar(&events, "show-events", true, "show the events about each object")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && !in.given() {
			return usagef("say what to describe, for example \"ctl describe pod web-0\"")
		}
		b, err := t.builder(all)
		if err != nil {
			return err
		}
		if b, err = t.addFiles(b, &in); err != nil {
			return err
		}
		infos, err := b.LabelSelectorParam(selector).ResourceTypeOrNameArgs(true, args...).Latest().Flatten().Do().Infos()
		if err != nil && len(infos) == 0 {
			return err
		}
		if len(infos) == 0 {
			fmt.Fprintln(t.Err, "No resources found")
		}
		client, clientErr := t.client()
		if clientErr != nil {
			return clientErr
		}
		for i, info := range infos {
			if i > 0 {
				fmt.Fprint(t.Out, "\n\n")
			}
			if pageErr := t.describeOne(cmd.Context(), client, info, events); pageErr != nil {
				return errors.Join(err, pageErr)
			}
		}
		return err
	}
	return cmd
}

func (t *tool) describeOne(ctx context.Context, client kubernetes.Interface, info *resource.Info, events bool) error {
	p := newPage(ctx, t.Out, client, time.Now())
	obj, err := typed(info.Object)
	write := describers()[info.Mapping.GroupVersionKind.Kind]
	if err != nil || write == nil {
		obj, write = info.Object, describeAny
	}
	if err := write(p, obj); err != nil {
		return err
	}
	if events && info.Mapping.GroupVersionKind.Kind != "Event" {
		if err := p.events(info); err != nil {
			return err
		}
	}
	return p.w.Flush()
}

// head writes what all objects have.
func (p *page) head(m metav1.Object) {
	p.line("Name", m.GetName())
	if m.GetNamespace() != "" {
		p.line("Namespace", m.GetNamespace())
	}
	p.set("Labels", m.GetLabels())
	p.set("Annotations", m.GetAnnotations())
	if m.GetDeletionTimestamp() != nil {
		p.line("Status", "Terminating since "+m.GetDeletionTimestamp().Format(time.RFC3339))
		if len(m.GetFinalizers()) > 0 {
			p.list("Finalizers", m.GetFinalizers())
		}
	}
}

func (p *page) owner(m metav1.Object) {
	if c := metav1.GetControllerOf(m); c != nil {
		p.line("Controlled By", c.Kind+"/"+c.Name)
	}
}

// events writes the events about an object, the oldest first.
func (p *page) events(info *resource.Info) error {
	m := accessor(info.Object)
	sel := fields.Set{"involvedObject.name": m.GetName(), "involvedObject.uid": string(m.GetUID())}
	if info.Mapping.GroupVersionKind.Kind == "Node" {
		// Some components put a node's name where its UID belongs.
		sel = fields.Set{"involvedObject.name": m.GetName(), "involvedObject.kind": "Node"}
	}
	list, err := p.client.CoreV1().Events(m.GetNamespace()).List(p.ctx, metav1.ListOptions{FieldSelector: sel.String(), Limit: 500})
	if err != nil {
		p.line("Events", "<cannot be read: "+err.Error()+">")
		return nil
	}
	if len(list.Items) == 0 {
		p.line("Events", "<none>")
		return nil
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Event) int { return cmp.Compare(lastSeen(&a).Unix(), lastSeen(&b).Unix()) })
	rows := make([][]string, 0, len(list.Items))
	for i := range list.Items {
		e := &list.Items[i]
		rows = append(rows, []string{e.Type, e.Reason, seen(e, p.now), reporter(e), strings.ReplaceAll(strings.TrimSpace(e.Message), "\n", " ")})
	}
	p.section("Events", func() { p.table([]string{"Type", "Reason", "Age", "From", "Message"}, rows) })
	return nil
}

// lastSeen is the time of the last occurrence, in whichever field it is.
func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}

// seen is the age of an event, with how often it happened.
func seen(e *corev1.Event, now time.Time) string {
	count, first := e.Count, e.FirstTimestamp.Time
	if e.Series != nil {
		count, first = e.Series.Count, e.EventTime.Time
	}
	if count > 1 {
		return fmt.Sprintf("%s (x%d over %s)", age(lastSeen(e), now), count, age(first, now))
	}
	return age(lastSeen(e), now)
}

// reporter is the component that reported an event.
func reporter(e *corev1.Event) string {
	return cmp.Or(e.Source.Component, e.ReportingController, "<unknown>")
}
