package ctl

import (
	"text/tabwriter"
)

// table returns a writer that aligns columns separated by tabs. Flush it.
func (t *tool) table() *tabwriter.Writer {
	return tabwriter.NewWriter(t.Out, 6, 4, 3, ' ', 0)
}
