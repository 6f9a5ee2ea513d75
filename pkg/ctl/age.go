package ctl

import (
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// age is the time since then, short, as in tables.
func age(then, now time.Time) string {
	if then.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(then))
}
