package controlplane_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"coracle/pkg/audit"
	"coracle/pkg/controlplane"
)

// lines is a log that many write to.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// libraryLog takes what libraries log until the test ends. No program of the
// project has them say more than they do by themselves.
func libraryLog(t *testing.T) *lines {
	t.Helper()
	out := &lines{}
	klog.LogToStderr(false)
	klog.SetOutput(out)
	t.Cleanup(func() {
		klog.SetOutput(io.Discard)
		klog.LogToStderr(true)
	})
	return out
}

// TestNothingSecretIsLogged: at the top verbosity, whatever is done with secrets
// and tokens, rightly and wrongly, neither logs nor events, metrics or the audit
// log show one (CVE-2019-11250, CVE-2020-8565, CVE-2020-8561).
func TestNothingSecretIsLogged(t *testing.T) {
	libraries, own := libraryLog(t), &lines{}
	dir := t.TempDir()
	auditPath := filepath.Join(dir, "audit.log")
	log := slog.New(slog.NewTextHandler(own, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))
	auditLog, err := audit.New(audit.Config{Path: auditPath, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- auditLog.Run(ctx) }()
	admin := serve(t, dir, func(o *controlplane.ServeOptions) {
		o.Log, o.Audit, o.BootstrapTokens, o.Roles = log, auditLog, true, true
		o.Encryption = &controlplane.Encryption{File: filepath.Join(dir, "encryption.yaml"), Create: true}
	})
	secrets := touchSecrets(t, admin)
	client := kubernetes.NewForConfigOrDie(admin)
	shown := map[string]string{"the server's log": own.text(), "the log of libraries": libraries.text()}
	events, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shown["the events"] = string(mustMarshal(t, events))
	for _, path := range []string{"/metrics", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
		data, err := client.Discovery().RESTClient().Get().RequestURI(path).DoRaw(t.Context())
		if err != nil && path == "/metrics" {
			t.Fatal(err)
		}
		shown[path] = string(data)
	}
	for _, name := range []string{"ca.key", "sa.key", "admin.key", "apiserver.key"} {
		data, err := os.ReadFile(filepath.Join(dir, "pki", name))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.Split(strings.TrimSpace(string(data)), "\n")[1])
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(auditPath)
	if err != nil {
		t.Fatal(err)
	}
	shown["the audit log"] = string(data)
	if !strings.Contains(shown["the audit log"], `"secrets"`) || !strings.Contains(shown["the server's log"], "was not authenticated") {
		t.Error("the logs do not tell of what was done")
	}
	if len(secrets) < 10 {
		t.Errorf("only %d secrets to look for", len(secrets))
	}
	for where, text := range shown {
		for _, s := range secrets {
			for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s))} {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("%s shows %.12s...: %s", where, s, text[max(0, at-200):min(len(text), at+60)])
					break
				}
			}
		}
	}
}

func mustMarshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// touchSecrets does what may be done with secrets and tokens, and what may not,
// and returns all that should have stayed between server and client.
func touchSecrets(t *testing.T, admin *rest.Config) []string {
	t.Helper()
	const value, second, bad, boot = "canary-value-71c3a9", "canary-second-5b22e0", "canary-unread-9d01fa", "0123canary456789"
	client := kubernetes.NewForConfigOrDie(admin)
	send := func(c *rest.Config, method, path, content, body string, headers ...string) int {
		t.Helper()
		h, err := rest.HTTPClientFor(c)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, c.Host+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", content)
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		resp, err := h.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		return resp.StatusCode
	}
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/error") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.Copy(w, io.MultiReader(strings.NewReader(bad), r.Body)) // the whole review, secret and all
	}))
	t.Cleanup(hook.Close)
	ignore, none := admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone
	for _, path := range []string{"/error", "/nonsense"} {
		url := hook.URL + path
		_, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: strings.TrimPrefix(path, "/")},
			Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: strings.TrimPrefix(path, "/") + ".example.com", FailurePolicy: &ignore, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
				ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: pemOf(hook)},
				Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"*"},
					Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}}}}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	const path = "/api/v1/namespaces/default/secrets"
	const merge, strategic, operations, apply = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"
	good := `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s"},"stringData":{"k":"` + value + `"}}`
	for _, c := range []struct {
		method, path, content, body string
		code                        int
	}{
		{"POST", path, "application/json", good, 201}, {"POST", path, "application/json", good, 409},
		{"PUT", path + "/s", "application/json", strings.Replace(good, value, second, 1), 200},
		{"PUT", path + "/s", "application/json", strings.NewReplacer(value, bad, `"stringData"`, `"type":"another","stringData"`).Replace(good), 422},
		{"POST", path, "application/json", strings.NewReplacer(`"s"`, `"sealed"`, `"stringData"`, `"immutable":true,"stringData"`).Replace(good), 201},
		{"PATCH", path + "/sealed", merge, `{"stringData":{"k":"` + bad + `"}}`, 422},
		{"POST", path, "application/json", `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"tls"},"type":"kubernetes.io/dockerconfigjson","stringData":{".dockerconfigjson":"{` + bad + `"}}`, 422},
		{"PATCH", path + "/s", merge, `{"stringData":{"k":"` + value + `"}}`, 200}, {"PATCH", path + "/s", strategic, `{"stringData":{"k":"` + second + `"}}`, 200},
		{"PATCH", path + "/s", operations, `[{"op":"add","path":"/stringData","value":{"k":"` + value + `"}}]`, 200},
		{"PATCH", path + "/s", operations, `[{"op":"test","path":"/data/k","value":"` + bad + `"}]`, 422},
		{"PATCH", path + "/s", operations, `[{"op":"add","path":"/nowhere/x/y","value":"` + bad + `"}]`, 422},
		{"PATCH", path + "/s?fieldManager=m&force=true", apply, strings.Replace(good, value, second, 1), 200}, {"PATCH", path + "/s?fieldManager=n", apply, good, 409},
		{"POST", path, "application/json", `{"data":{"k":"` + bad + `"` /* cut off */, 400}, {"POST", path, "application/yaml", "data:\n  k: " + bad + "\n k: [", 400},
		{"POST", path, "application/json", `{"metadata":{"name":"t"},"data":{"k":"` + bad + ` is not base64!"}}`, 400},
		{"POST", path, "application/vnd.kubernetes.protobuf", "k8s\x00" + bad, 400}, {"PATCH", path + "/s", merge, `{"data":"` + bad + `"}`, 422},
		{"PATCH", path + "/s", strategic, `{"data":"` + bad + `"}`, 422}, {"PATCH", path + "/s?fieldValidation=Strict", merge, `{"dta":{"k":"` + bad + `"}}`, 422},
		{"POST", path, "application/json", bad + ": no JSON", 400},
		{"GET", path + "/s", "", "", 200}, {"GET", path, "", "", 200},
	} {
		if code := send(admin, c.method, c.path, c.content, c.body); code != c.code && (c.code < 400 || code < 400) {
			t.Errorf("%s %s %s: %d, want %d", c.method, c.path, c.body, code, c.code)
		}
	}
	stranger := rest.AnonymousClientConfig(admin)
	protocol := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(bad))
	for _, headers := range [][]string{
		{"Authorization", "Bearer " + bad}, {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("root:"+bad))}, {"Authorization", bad}, {"Cookie", "session=" + bad},
		{"Authorization", "Bearer eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"`+bad+`"}`)) + "." + bad},
		{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Protocol", protocol + ", v5.channel.k8s.io"}, {"X-Remote-User", "x", "Proxy-Authorization", "Bearer " + bad},
	} {
		if code := send(stranger, "GET", path+"/s", "", "", headers...); code < 400 {
			t.Errorf("%v: %d", headers, code)
		}
	}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	issued, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	signature := issued.Status.Token[strings.LastIndexByte(issued.Status.Token, '.')+1:]
	for _, token := range []string{issued.Status.Token, issued.Status.Token + "x", bad} {
		if _, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
		send(stranger, "GET", path, "", "", "Authorization", "Bearer "+token)
	}
	if _, err := client.CoreV1().Secrets("kube-system").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		StringData: map[string]string{"token-id": "abcdef", "token-secret": boot, "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"abcdef." + boot, "abcdef.0123canary45678x", "abcdee." + boot} {
		send(stranger, "GET", "/api/v1/nodes", "", "", "Authorization", "Bearer "+token)
	}
	return []string{value, second, bad, boot, "0123canary45678x", signature}
}

// pemOf is the certificate of a test's server.
func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}
