package resource

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// columns builds table columns from short specs: "Name", "Data:integer",
// "+IP" (a plus sign: only in wide output). "Name" is the name column.
func columns(specs ...string) []metav1.TableColumnDefinition {
	out := make([]metav1.TableColumnDefinition, 0, len(specs))
	for _, spec := range specs {
		c := metav1.TableColumnDefinition{Type: "string"}
		if rest, wide := strings.CutPrefix(spec, "+"); wide {
			spec, c.Priority = rest, 1
		}
		if name, typ, ok := strings.Cut(spec, ":"); ok {
			spec, c.Type = name, typ
		}
		c.Name = spec
		if spec == "Name" {
			c.Format = "name"
		}
		out = append(out, c)
	}
	return out
}

// orNone is s, or kubectl's sign for nothing.
func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// age is how long ago t was, in kubectl's short form.
func age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}
