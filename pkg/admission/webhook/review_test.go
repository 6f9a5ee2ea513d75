package webhook

import (
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReadReview(t *testing.T) {
	const v1, beta = `"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"`, `"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"`
	for _, c := range []struct {
		name, version, body string
		mutating            bool
		want                string // error
	}{
		{"allowed", "v1", `{` + v1 + `,"response":{"uid":"u","allowed":true}}`, false, ""},
		{"the question comes back, too", "v1", `{` + v1 + `,"request":{"uid":"u","object":[1]},"response":{"uid":"u"}}`, false, ""},
		{"space around it", "v1", " \n{" + v1 + `,"response":{"uid":"u"}}` + "\n", false, ""},
		{"a patch", "v1", `{` + v1 + `,"response":{"uid":"u","allowed":true,"patch":"W10=","patchType":"JSONPatch"}}`, true, ""},
		{"a patch of one that validates", "v1", `{` + v1 + `,"response":{"uid":"u","patch":"W10="}}`, false, "may not return response.patch"},
		{"a type of patch of one that validates", "v1", `{` + v1 + `,"response":{"uid":"u","patchType":"JSONPatch"}}`, false, "may not return response.patchType"},
		{"no type", "v1", `{` + v1 + `,"response":{"uid":"u","patch":"W10="}}`, true, "but not response.patchType"},
		{"no patch", "v1", `{` + v1 + `,"response":{"uid":"u","patchType":"JSONPatch"}}`, true, "but not response.patch"},
		{"an empty type", "v1", `{` + v1 + `,"response":{"uid":"u","patch":"W10=","patchType":""}}`, true, "invalid response.patchType"},
		{"another question", "v1", `{` + v1 + `,"response":{"uid":"x"}}`, false, `expected response.uid="u", got "x"`},
		{"a long lie is cut", "v1", `{` + v1 + `,"response":{"uid":"` + strings.Repeat("x", 1<<16) + `"}}`, false, `expected response.uid="u", got "xxx`},
		{"another version", "v1", `{` + beta + `,"response":{"uid":"u"}}`, false, "expected webhook response of admission.k8s.io/v1"},
		{"fields in another case", "v1", `{` + v1 + `,"Response":{"uid":"u"}}`, false, "absent"},
		{"nothing", "v1", ``, false, "no AdmissionReview"},
		{"null", "v1", `null`, false, "absent"},
		{"more than one", "v1", `{} {}`, false, "no AdmissionReview"},
		{"the older version says less", "v1beta1", `{"response":{"allowed":true,"patch":"W10="}}`, true, ""},
	} {
		r, err := readReview([]byte(c.body), c.version, "u", c.mutating)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		case err != nil && len(err.Error()) > 500:
			t.Errorf("%s: the error has %d bytes", c.name, len(err.Error()))
		case err == nil && c.mutating && (r.PatchType == nil || *r.PatchType != admissionv1.PatchTypeJSONPatch):
			t.Errorf("%s: the patch has no type", c.name)
		}
	}
}

func TestReviewVersion(t *testing.T) {
	for want, understood := range map[string][]string{"v1": {"v2", "v1", "v1beta1"}, "v1beta1": {"v1beta1", "v1"}, "": {"v2"}} {
		if got, err := reviewVersion(understood); got != want || (err == nil) == (want == "") {
			t.Errorf("%v: %q %v, want %q", understood, got, err, want)
		}
	}
}

// FuzzReadReview: whatever a webhook sends is an answer that the rules allow,
// or an error of a bounded length; and a refusal has a code that HTTP has.
func FuzzReadReview(f *testing.F) {
	full, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Response: &admissionv1.AdmissionResponse{
			UID: "u", Allowed: true, Patch: []byte(`[{"op":"add","path":"/a","value":1}]`), PatchType: new(admissionv1.PatchTypeJSONPatch),
			AuditAnnotations: map[string]string{"a": "b"}, Warnings: []string{"w"},
			Result: &metav1.Status{Code: 403, Message: "m", Reason: "r", Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Field: "f"}}}},
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(full), `{}`, `null`, `[]`, `{"response":null}`, `{"response":{"uid":"u","status":{"code":1e9}}}`, strings.Repeat(`{"response":`, 100)} {
		f.Add([]byte(seed), true, true)
		f.Add([]byte(seed), false, false)
	}
	f.Fuzz(func(t *testing.T, body []byte, mutating, first bool) {
		version := "v1beta1"
		if first {
			version = "v1"
		}
		r, err := readReview(body, version, "u", mutating)
		if err != nil {
			return
		}
		if first && r.UID != "u" {
			t.Errorf("took the answer to %q", r.UID)
		}
		if !mutating && (len(r.Patch) > 0 || r.PatchType != nil) {
			t.Error("took a patch of a webhook that validates")
		}
		if (len(r.Patch) > 0) != (r.PatchType != nil) {
			t.Error("took a patch without its type, or a type without patch")
		}
		status := refusal("w", r.Result).Status()
		if status.Code < 400 || status.Code > 599 || status.Status == metav1.StatusSuccess || !strings.HasPrefix(status.Message, `admission webhook "w" denied the request`) {
			t.Errorf("refused with %+v", status)
		}
	})
}
