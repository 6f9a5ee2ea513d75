package ctl

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/kubernetes/scheme"
)

// table returns a writer that aligns columns separated by tabs. Flush it.
func (t *tool) table() *tabwriter.Writer {
	return tabwriter.NewWriter(escaper{t.Out}, 6, 4, 3, ' ', 0)
}

// escape makes control characters visible, except for line ends and tabs, so
// that text from the cluster cannot drive the user's terminal.
func escape(s string) string {
	bad := func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError
	}
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !bad(r):
			b.WriteRune(r)
		case r < ' ':
			b.WriteString("^" + string(r+'@'))
		case r == utf8.RuneError:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "\\x%02x", r)
		}
	}
	return b.String()
}

// escaper is a writer that escapes.
type escaper struct{ w io.Writer }

// Write escapes p, which holds whole characters.
func (e escaper) Write(p []byte) (int, error) {
	if _, err := io.WriteString(e.w, escape(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// printing is the output of verbs that change objects: one line for each, or
// the object in a format.
type printing struct{ flags *genericclioptions.PrintFlags }

func newPrinting(cmd *cobra.Command) *printing {
	p := &printing{genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)}
	p.flags.AddFlags(cmd)
	return p
}

// print prints one object; done is what was done to it.
func (p *printing) print(t *tool, obj runtime.Object, done string, dry dryRun) error {
	if p.flags.NamePrintFlags != nil {
		p.flags.NamePrintFlags.Operation = done + dry.suffix()
	}
	printer, err := p.flags.ToPrinter()
	if err != nil {
		return err
	}
	return printer.PrintObj(obj, t.Out)
}

// structured says that whole objects are printed, so that the last state of
// each is worth fetching.
func (p *printing) structured() bool {
	return *p.flags.OutputFormat != "" && *p.flags.OutputFormat != "name"
}

// dryRun is the value of --dry-run.
type dryRun string

const (
	dryNone   dryRun = "none"
	dryClient dryRun = "client"
	dryServer dryRun = "server"
)

func (d dryRun) suffix() string {
	switch d {
	case dryClient:
		return " (dry run)"
	case dryServer:
		return " (server dry run)"
	}
	return ""
}

// options is the parameter of requests.
func (d dryRun) options() []string {
	if d == dryServer {
		return []string{"All"}
	}
	return nil
}

// addDryRun adds the flag.
func addDryRun(cmd *cobra.Command, d *dryRun) {
	*d = dryNone
	cmd.Flags().Var(dryRunValue{d}, "dry-run", "none; server asks the server without keeping anything; client sends nothing")
	cmd.Flags().Lookup("dry-run").NoOptDefVal = "unset"
	_ = cmd.RegisterFlagCompletionFunc("dry-run", cobra.FixedCompletions([]string{"none", "client", "server"}, cobra.ShellCompDirectiveNoFileComp))
}

type dryRunValue struct{ d *dryRun }

// String, Set and Type implement pflag.Value.
func (v dryRunValue) String() string {
	if v.d == nil {
		return string(dryNone)
	}
	return string(*v.d)
}
func (v dryRunValue) Type() string { return "string" }
func (v dryRunValue) Set(s string) error {
	switch d := dryRun(s); d {
	case dryNone, dryClient, dryServer:
		*v.d = d
		return nil
	}
	return fmt.Errorf("use --dry-run=client (nothing is sent) or --dry-run=server (nothing is kept)")
}

// printerFor makes a printer for -o, or nil for tables (empty, wide).
func printerFor(output string, showManaged bool) (printers.ResourcePrinter, error) {
	switch {
	case output == "" || output == "wide":
		return nil, nil
	case strings.HasPrefix(output, "custom-columns"):
		return newColumns(output)
	}
	f := genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)
	f.OutputFormat = &output
	f.JSONYamlPrintFlags.ShowManagedFields = showManaged
	p, err := f.ToPrinter()
	if genericclioptions.IsNoCompatiblePrinterError(err) {
		return nil, usagef("-o %s is not known: use wide, yaml, json, name, jsonpath=, jsonpath-file=, go-template=, go-template-file=, custom-columns= or custom-columns-file=", output)
	}
	return p, err
}
