package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/rest"
)

// getting is one run of get.
type getting struct {
	*tool
	files         files
	all           bool
	labels        string
	fields        string
	output        string
	sortBy        string
	labelColumns  []string
	showLabels    bool
	showKind      bool
	showManaged   bool
	noHeaders     bool
	ignoreMissing bool
	watch         bool
	watchOnly     bool
	events        bool
	chunk         int64
	subresource   string
}

func (t *tool) get() *cobra.Command {
	o := &getting{tool: t}
	cmd := &cobra.Command{
		Use:   "get TYPE[,TYPE...] [NAME...] | TYPE/NAME... | -f FILE",
		Short: "Show one or many objects",
		Example: "  ctl get pods -A -o wide\n  ctl get deploy,rs -l app=web\n" +
			"  ctl get pod/web-0 -o yaml\n  ctl get pods --sort-by=.status.startTime -w",
		ValidArgsFunction: t.completeObjects,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	o.files.add(cmd, "of the objects to show")
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "in all namespaces")
	f.StringVarP(&o.labels, "selector", "l", "", "label selector, for example app=web,tier!=db")
	f.StringVar(&o.fields, "field-selector", "", "field selector, for example status.phase=Running")
	f.StringVarP(&o.output, "output", "o", "", "wide, yaml, json, name, jsonpath=, go-template=, custom-columns=, or -file= variants")
	f.StringVar(&o.sortBy, "sort-by", "", "sort by a JSON path, for example .metadata.creationTimestamp")
	f.StringSliceVarP(&o.labelColumns, "label-columns", "L", nil, "labels to show as columns")
	f.BoolVar(&o.showLabels, "show-labels", false, "show all labels in the last column")
	f.BoolVar(&o.showKind, "show-kind", false, "show the kind in front of the name")
	f.BoolVar(&o.showManaged, "show-managed-fields", false, "keep metadata.managedFields in YAML and JSON")
	f.BoolVar(&o.noHeaders, "no-headers", false, "leave the headers out")
	f.BoolVar(&o.ignoreMissing, "ignore-not-found", false, "an object that does not exist is no error")
	f.BoolVarP(&o.watch, "watch", "w", false, "go on and show changes")
	f.BoolVar(&o.watchOnly, "watch-only", false, "show changes only")
	f.BoolVar(&o.events, "output-watch-events", false, "with -w, show what happened in the first column")
	f.Int64Var(&o.chunk, "chunk-size", 500, "ask for lists in parts of this size; 0 for one part")
	f.StringVar(&o.subresource, "subresource", "", "show status or scale of the object")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"wide", "yaml", "json", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *getting) run(ctx context.Context, args []string) error {
	if len(args) == 0 && !o.files.given() {
		return usagef("say what to show, for example \"ctl get pods\" (\"ctl api-resources\" lists all types)")
	}
	p, err := printerFor(o.output, o.showManaged)
	if err != nil {
		return err
	}
	if c, ok := p.(*columns); ok {
		c.noHeader = o.noHeaders
	}
	if o.watch || o.watchOnly {
		return o.follow(ctx, args, p)
	}
	result, err := o.find(args, p == nil)
	if err != nil {
		return err
	}
	if p != nil {
		return o.objects(result, p)
	}
	return o.tables(result)
}

// find asks the server, for tables or for objects.
func (o *getting) find(args []string, tables bool) (*resource.Result, error) {
	b, err := o.builder(o.all)
	if err != nil {
		return nil, err
	}
	if b, err = o.addFiles(b, &o.files); err != nil {
		return nil, err
	}
	b = b.LabelSelectorParam(o.labels).FieldSelectorParam(o.fields).Subresource(o.subresource).
		RequestChunksOf(o.chunk).ResourceTypeOrNameArgs(true, args...).Latest()
	if tables {
		b = b.TransformRequests(o.askForTable)
	}
	r := b.Flatten().Do()
	if o.ignoreMissing {
		r = r.IgnoreErrors(apierrors.IsNotFound)
	}
	return r, nil
}

// askForTable makes a request ask for rows that the server has formatted.
func (o *getting) askForTable(req *rest.Request) {
	req.SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	if o.sortBy != "" {
		req.Param("includeObject", "Object") // the path may point anywhere
	}
}

// objects prints whole objects: alone when one was asked for, else as a list.
func (o *getting) objects(r *resource.Result, p printers.ResourcePrinter) error {
	var single bool
	infos, err := r.IntoSingleItemImplied(&single).Infos()
	if err != nil && (single || len(infos) == 0) {
		return err
	}
	if o.sortBy != "" {
		if sortErr := sortObjects(infos, o.sortBy); sortErr != nil {
			return sortErr
		}
	}
	if single && len(infos) == 1 {
		return errors.Join(err, p.PrintObj(infos[0].Object, o.Out))
	}
	if o.ignoreMissing && len(infos) == 0 && single {
		return nil
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{
		"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""},
	}}
	for _, info := range infos {
		u, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("the server answered with a %T", info.Object)
		}
		list.Items = append(list.Items, *u)
	}
	if o.output == "name" {
		return errors.Join(err, meta.EachListItem(list, func(item runtime.Object) error { return p.PrintObj(item, o.Out) }))
	}
	return errors.Join(err, p.PrintObj(list, o.Out))
}
