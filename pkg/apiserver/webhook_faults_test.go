package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rawHook is a webhook that answers as it likes.
func rawHook(t *testing.T, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(answer)
	t.Cleanup(s.Close)
	return s
}

// hanging is a webhook that answers when the test is over.
func hanging(t *testing.T) *httptest.Server {
	t.Helper()
	done := make(chan struct{})
	s := rawHook(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-done:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(done) }) // before the server closes
	return s
}

// said answers every question with the response, of which uid and the rest are
// as the format has them.
func said(format string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, strings.ReplaceAll(format, "UID", string(review.Request.UID)))
	}
}

// TestWebhooksThatFail: each way to fail refuses the request with failurePolicy
// Fail, in words that name the webhook, and lets it pass with Ignore.
func TestWebhooksThatFail(t *testing.T) {
	s := newServer(t)
	elsewhere := newHook(t, nil)
	const ok = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"UID","allowed":true`
	dead := rawHook(t, nil)
	dead.Close()
	for i, c := range []struct {
		name string
		hook *httptest.Server
		more string
		want string
	}{
		{"hangs", hanging(t), `"timeoutSeconds":1`, "context deadline exceeded"},
		{"is not there", dead, "", "connect"},
		{"redirects", rawHook(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }), "", "redirects are not followed"},
		{"answers an error", rawHook(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }), "", "500 Internal Server Error"},
		{"sends 100 MB", rawHook(t, func(w http.ResponseWriter, _ *http.Request) {
			chunk := []byte(strings.Repeat("x", 1<<20))
			for range 100 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}), "", "its answer is longer than"},
		{"sends no JSON", rawHook(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }), "", "it is no AdmissionReview"},
		{"sends no response", rawHook(t, said(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`)), "", "webhook response was absent"},
		{"answers another question", rawHook(t, said(strings.Replace(ok, "UID", "other", 1)+"}}")), "", `expected response.uid=`},
		{"sends another kind", rawHook(t, said(strings.Replace(ok, "AdmissionReview", "Pod", 1)+"}}")), "", "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview"},
		{"sends a patch without its type", rawHook(t, said(ok+`,"patch":"W10="}}`)), "", "response.patch but not response.patchType"},
		{"sends a patch of another type", rawHook(t, said(ok+`,"patch":"W10=","patchType":"Merge"}}`)), "", `unsupported patch type "Merge"`},
		{"sends a patch that is none", rawHook(t, said(ok+`,"patch":"eHh4","patchType":"JSONPatch"}}`)), "", "undecodable patch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := fmt.Sprintf("hook%d", i)
			more := []string{}
			if c.more != "" {
				more = append(more, c.more)
			}
			s.configure(t, mutatingPath, name, webhookEntry(name, c.hook, rule("CREATE", "", "v1", "configmaps"), more...))
			got := s.must(t, http.StatusInternalServerError, "POST", configMapsPath, configMapOf(name, nil)).status(t)
			begin := fmt.Sprintf("Internal error occurred: failed calling webhook %q: ", name+".example.com")
			if !strings.HasPrefix(got.Message, begin) || !strings.Contains(got.Message, c.want) || got.Reason != metav1.StatusReasonInternalError {
				t.Errorf("refused with %s: %s\nwant %s...%s", got.Reason, got.Message, begin, c.want)
			}
			s.must(t, http.StatusNotFound, "GET", configMapsPath+"/"+name, "")
			// What it is not asked about is not its matter.
			s.must(t, http.StatusCreated, "POST", "/api/v1/namespaces/default/secrets", jsonText(map[string]any{
				"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name}}))
			s.must(t, http.StatusOK, "PATCH", mutatingPath+"/"+name, `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`, contentType("application/json-patch+json"))
			s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf(name, nil))
			s.must(t, http.StatusOK, "DELETE", mutatingPath+"/"+name, "")
		})
	}
	if n := len(elsewhere.requests()); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
	m := s.must(t, http.StatusOK, "GET", "/metrics", "")
	for _, want := range []string{
		`apiserver_admission_webhook_fail_open_count{name="hook0.example.com",type="admit"} 1`,
		`apiserver_admission_webhook_rejection_count{error_type="calling_webhook_error",name="hook0.example.com",operation="CREATE",rejection_code="500",type="admit"} 1`,
		`apiserver_admission_webhook_admission_duration_seconds_count{name="hook0.example.com",operation="CREATE",rejected="true",type="admit"} 1`,
	} {
		if !strings.Contains(string(m.body), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// TestPatchesThatDoNotFit are refused whatever the failurePolicy: the webhook
// was asked, and what it wants cannot be had.
func TestPatchesThatDoNotFit(t *testing.T) {
	s := newServer(t)
	var patch string
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return patched(patch) })
	s.configure(t, mutatingPath, "m", webhookEntry("m", h.Server, rule("*", "", "v1", "configmaps"), `"failurePolicy":"Ignore"`))
	bomb := `{"op":"add","path":"/x","value":["` + strings.Repeat("x", 1000) + `"]}`
	for range 30 {
		bomb += `,{"op":"copy","from":"/x","path":"/x/-"}`
	}
	for _, c := range []struct {
		patch string
		code  int
		want  string
	}{
		{`[{"op":"remove","path":"/data/none"}]`, 500, "does not fit the object"},
		{`[{"op":"test","path":"/metadata/name","value":"other"}]`, 500, "does not fit the object"},
		{`[` + bomb + `]`, 500, "too large"},
		{`[{"op":"replace","path":"/kind","value":"Secret"}]`, 500, "it is of kind /v1, Kind=Secret"},
		{`[{"op":"replace","path":"/data","value":3}]`, 500, "cannot be decoded"},
		{`[{"op":"replace","path":"","value":null}]`, 500, ""},
		{`[{"op":"add","path":"/metadata/namespace","value":"kube-system"}]`, 400, "namespace"},
		{`[{"op":"replace","path":"/data","value":{"not a key":"x"}}]`, 422, "a valid config key"},
	} {
		patch = c.patch
		got := s.must(t, c.code, "POST", configMapsPath, configMapOf("m", map[string]string{"a": "b"})).status(t)
		if !strings.Contains(got.Message, c.want) {
			t.Errorf("%.80s: %s, want %q", c.patch, got.Message, c.want)
		}
	}
	// A deletion has nothing to patch, and no update gives an object another name.
	patch = `[]`
	s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("m", map[string]string{"a": "b"}))
	patch = `[{"op":"add","path":"/metadata/name","value":"n"}]`
	got := s.must(t, http.StatusInternalServerError, "DELETE", configMapsPath+"/m", "").status(t)
	if !strings.Contains(got.Message, "attempted to modify the object, which is not supported for this operation") {
		t.Errorf("a patch of a deletion: %s", got.Message)
	}
	got = s.must(t, http.StatusUnprocessableEntity, "PUT", configMapsPath+"/m", configMapOf("m", map[string]string{"a": "c"})).status(t)
	if !strings.Contains(got.Message, "metadata.name") {
		t.Errorf("another name: %s", got.Message)
	}
	// Unknown fields are dropped, as those of a client would be.
	patch = `[{"op":"add","path":"/unknown","value":"x"},{"op":"add","path":"/data/a","value":"d"}]`
	if got := dataOf(t, s.must(t, http.StatusOK, "PUT", configMapsPath+"/m", configMapOf("m", map[string]string{"a": "c"}))); got["a"] != "d" {
		t.Errorf("data %v", got)
	}
}

// TestHangingWebhookHarmsItsOwnRequests: while many requests hang in a webhook,
// others are served.
func TestHangingWebhookHarmsItsOwnRequests(t *testing.T) {
	s := newServer(t)
	s.configure(t, validatingPath, "hang", webhookEntry("hang", hanging(t), rule("CREATE", "", "v1", "secrets"), `"timeoutSeconds":2`))
	var requests sync.WaitGroup
	for i := range 50 {
		requests.Go(func() {
			a := s.do(t, "POST", "/api/v1/namespaces/default/secrets", jsonText(map[string]any{
				"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": fmt.Sprint("s", i)}}))
			if a.code != http.StatusInternalServerError || !strings.Contains(string(a.body), "deadline") {
				t.Errorf("a request that hung: %d %s", a.code, a.body)
			}
		})
	}
	for i := range 20 {
		s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf(fmt.Sprint("m", i), nil))
	}
	requests.Wait()
}

// TestRequestsOwnDeadline: a webhook has no more time than the request.
func TestRequestsOwnDeadline(t *testing.T) {
	s := newServer(t)
	for _, policy := range []string{"Fail", "Ignore"} {
		s.configure(t, validatingPath, "hang", webhookEntry("hang", hanging(t), rule("CREATE", "", "v1", "configmaps"), `"timeoutSeconds":30`, `"failurePolicy":"`+policy+`"`))
		a := s.do(t, "POST", configMapsPath+"?timeout=300ms", configMapOf("m", nil))
		if a.code < 500 {
			t.Errorf("%s: %d %s", policy, a.code, a.body)
		}
		s.must(t, http.StatusOK, "DELETE", validatingPath+"/hang", "")
	}
	s.must(t, http.StatusNotFound, "GET", configMapsPath+"/m", "")
}

func TestDryRunOfWebhooks(t *testing.T) {
	s := newServer(t)
	h := newHook(t, nil)
	s.configure(t, validatingPath, "v", webhookEntry("v", h.Server, rule("*", "", "v1", "configmaps")))
	s.must(t, http.StatusCreated, "POST", configMapsPath+"?dryRun=All", configMapOf("m", nil))
	got := h.last(t)
	if got.DryRun == nil || !*got.DryRun || !strings.Contains(string(got.Options.Raw), `"dryRun":["All"]`) {
		t.Errorf("asked with dryRun %v, options %s", got.DryRun, got.Options.Raw)
	}
	s.must(t, http.StatusNotFound, "GET", configMapsPath+"/m", "")
}

func TestWarningsOfWebhooks(t *testing.T) {
	s := newServer(t)
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"careful", "line\nbreak"}}
	})
	s.configure(t, validatingPath, "v", webhookEntry("v", h.Server, rule("*", "", "v1", "configmaps")))
	a := s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("m", nil))
	if got := strings.Join(a.header.Values("Warning"), "; "); got != `299 - "careful"; 299 - "line break"` {
		t.Errorf("warnings %s", got)
	}
}
