package apiserver_test

import (
	"regexp"
	"testing"

	"k8s.io/apimachinery/pkg/version"
)

// TestConformance runs the checks of testdata/conformance.txt.
func TestConformance(t *testing.T) { runChecks(t, conformanceList, conformance()) }

func conformance() map[string]check {
	return map[string]check{
		"APIM-093": checkVersionPath,
	}
}

func checkVersionPath(t *testing.T) {
	s := newServer(t)
	got := version.Info{}
	s.must(t, 200, "GET", "/version", "").decode(t, &got)
	if !regexp.MustCompile(`^[0-9]+$`).MatchString(got.Major) || !regexp.MustCompile(`^[0-9]+\+?$`).MatchString(got.Minor) {
		t.Errorf("version %+v", got)
	}
}
