package ctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/jsonpath"
)

// columns prints objects as a table of the user's own.
type columns struct {
	headers  []string
	paths    []*jsonpath.JSONPath
	noHeader bool
	printed  bool
}

// newColumns reads -o custom-columns=NAME:.path,... or custom-columns-file=.
func newColumns(output string) (*columns, error) {
	kind, spec, _ := strings.Cut(output, "=")
	var heads, paths []string
	switch kind {
	case "custom-columns":
		for _, col := range strings.Split(spec, ",") {
			head, path, ok := strings.Cut(col, ":")
			if !ok || path == "" {
				return nil, usagef("%q is no column: write custom-columns=HEADER:.path.to.field,HEADER:.path", col)
			}
			heads, paths = append(heads, head), append(paths, path)
		}
	case "custom-columns-file":
		data, err := os.ReadFile(spec)
		if err != nil {
			return nil, fmt.Errorf("read the columns: %w", err)
		}
		lines := strings.SplitN(string(data), "\n", 3)
		if len(lines) < 2 {
			return nil, fmt.Errorf("%s needs a line of headers and a line of paths", spec)
		}
		heads, paths = strings.Fields(lines[0]), strings.Fields(lines[1])
		if len(heads) != len(paths) {
			return nil, fmt.Errorf("%s has %d headers and %d paths", spec, len(heads), len(paths))
		}
	default:
		return nil, usagef("-o %s is not known: did you mean custom-columns= or custom-columns-file=?", kind)
	}
	c := &columns{headers: heads}
	for i, path := range paths {
		p, err := relaxedPath(heads[i], path)
		if err != nil {
			return nil, err
		}
		c.paths = append(c.paths, p)
	}
	return c, nil
}

// relaxedPath parses a JSON path that may lack its braces and leading dot.
func relaxedPath(name, path string) (*jsonpath.JSONPath, error) {
	if !strings.HasPrefix(path, "{") {
		path = "{." + strings.TrimPrefix(path, ".") + "}"
	}
	p := jsonpath.New(name).AllowMissingKeys(true)
	if err := p.Parse(path); err != nil {
		return nil, fmt.Errorf("%s is no JSON path (an example is .metadata.name): %w", path, err)
	}
	return p, nil
}

// PrintObj prints one object or a list.
func (c *columns) PrintObj(obj runtime.Object, out io.Writer) error {
	objs := []runtime.Object{obj}
	if meta.IsListType(obj) {
		var err error
		if objs, err = meta.ExtractList(obj); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(escaper{out}, 6, 4, 3, ' ', 0)
	if !c.noHeader && !c.printed {
		fmt.Fprintln(w, strings.Join(c.headers, "\t"))
		c.printed = true
	}
	for _, o := range objs {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return errors.New("columns are made of objects as the server gives them")
		}
		cells := make([]string, len(c.paths))
		for i, p := range c.paths {
			cells[i] = cell(p, u.Object)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// cell is the text of all that a path finds.
func cell(p *jsonpath.JSONPath, obj any) string {
	found, err := p.FindResults(obj)
	if err != nil {
		return "<none>"
	}
	var parts []string
	for _, group := range found {
		for _, v := range group {
			if v.IsValid() && v.CanInterface() && v.Interface() != nil {
				parts = append(parts, fmt.Sprint(v.Interface()))
			}
		}
	}
	if len(parts) == 0 {
		return "<none>"
	}
	return strings.Join(parts, ",")
}
