package apiserver

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"coracle/pkg/resource"
)

// FuzzOptions: any query of a list or a write is read or refused with a Status,
// its selectors as the library reads them.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{"", "labelSelector=a%3Db,c+in+(d,e)&fieldSelector=metadata.name%3Dx&limit=5", "limit=-1&timeoutSeconds=x", "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
		"dryRun=All&fieldValidation=Strict&fieldManager=m&force=true", "dryRun=x", "fieldValidation=y", "gracePeriodSeconds=9&propagationPolicy=Orphan&orphanDependents=true", "timeoutSeconds=9223372036854775807"} {
		f.Add(seed)
	}
	pods, ok := resource.Builtin().ByGVR(corev1.SchemeGroupVersion.WithResource("pods"))
	if !ok {
		f.Fatal("no pods in the table")
	}
	sv := served{res: pods}
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: query}, Header: http.Header{}}
		isStatus := func(err error) {
			if _, ok := err.(apierrors.APIStatus); err != nil && !ok {
				t.Fatalf("%q: %v is no Status", query, err)
			}
		}
		q := r.URL.Query()
		out, err := listOptions(r, sv, metav1.Now().Time)
		isStatus(err)
		byLabel, labelErr := labels.Parse(q.Get("labelSelector"))
		_, fieldErr := fields.ParseSelector(q.Get("fieldSelector"))
		if err == nil && (labelErr != nil || fieldErr != nil) {
			t.Fatalf("%q is accepted, the library says %v, %v", query, labelErr, fieldErr)
		}
		if err == nil && out.Labels != nil && out.Labels.String() != byLabel.String() {
			t.Fatalf("%q selects %s, by the library %s", query, out.Labels, byLabel)
		}
		_, _, err = writeOptions(r, &metav1.CreateOptions{})
		isStatus(err)
		_, _, err = writeOptions(r, &metav1.PatchOptions{})
		isStatus(err)
	})
}

// FuzzWarning: a warning of any text is one header that the library reads, with
// the text in it.
func FuzzWarning(f *testing.F) {
	for _, seed := range []string{"", "plain", `with "quotes" and \`, "two\nlines\x7f", "\x00", "é", "\xff", `, 299 - "other"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found, errs := utilnet.ParseWarningHeaders([]string{"299 - " + quoteWarning(text)})
		if len(errs) > 0 || len(found) != 1 || found[0].Code != 299 || found[0].Agent != "-" {
			t.Fatalf("%q: %v %v", text, found, errs)
		}
		clean := strings.Map(func(c rune) rune {
			if unicode.IsControl(c) {
				return ' '
			}
			return c
		}, text)
		if found[0].Text != clean {
			t.Fatalf("%q becomes %q", text, found[0].Text)
		}
	})
}

// FuzzRequestHeaders: any header that says how an answer is to be sent, or for
// how long the request may take, is read without harm.
func FuzzRequestHeaders(f *testing.F) {
	f.Add("gzip;q=0.0, br", "10s", "kubectl/v1 (x)", "json", "https://a.b")
	f.Add(";;,,=", "-1h", "", "a/b; c=d;;", ":")
	s := &Server{cfg: Config{RequestTimeout: 60e9}}
	f.Fuzz(func(t *testing.T, encoding, timeout, agent, content, origin string) {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/", RawQuery: url.Values{"timeout": {timeout}}.Encode()},
			Header: http.Header{"Accept-Encoding": {encoding}, "Content-Type": {content}, "Origin": {origin}}}
		acceptsGzip(r)
		trustedOrigin(r)
		if d, err := s.timeout(r); err == nil && (d <= 0 || d > s.cfg.RequestTimeout) {
			t.Fatalf("timeout %q gives %s", timeout, d)
		}
		if name := managerOfAgent(agent); len(name) > 128 {
			t.Fatalf("agent %q gives a manager of %d bytes", agent, len(name))
		}
		if media, ok := bodyType(r); ok && media != "application/json" && media != "application/yaml" && media != "application/vnd.kubernetes.protobuf" {
			t.Fatalf("Content-Type %q gives %q", content, media)
		}
	})
}
