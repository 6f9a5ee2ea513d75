package apiserver_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"

	"coracle/pkg/storage/cache"
)

// gadgets declares a kind with two versions. conversion is JSON.
func gadgets(conversion, storage string) string {
	schema := func(field string) string {
		return `{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"` + field + `":{"type":"string"}}}}}}`
	}
	return fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"gadgets.example.com"},"spec":{
		"group":"example.com","scope":"Namespaced","names":{"plural":"gadgets","kind":"Gadget"},"conversion":%s,"versions":[
		{"name":"v1","served":true,"storage":%t,"schema":%s},
		{"name":"v1beta1","served":true,"deprecated":true,"storage":%t,"schema":%s}]}}`,
		conversion, storage == "v1", schema("size"), storage == "v1beta1", schema("width"))
}

func gadgetPath(version string) string {
	return "/apis/example.com/" + version + "/namespaces/default/gadgets"
}

func TestCustomVersionsWithoutConversion(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		name := s.define(t, gadgets(`{"strategy":"None"}`, "v1beta1"))
		a := s.must(t, http.StatusCreated, "POST", gadgetPath("v1beta1"), `{"apiVersion":"example.com/v1beta1","kind":"Gadget","metadata":{"name":"a"},"spec":{"width":"w"}}`)
		if w := a.header.Get("Warning"); !strings.Contains(w, "example.com/v1beta1 Gadget is deprecated; use example.com/v1 Gadget") {
			t.Errorf("warning %q", w)
		}
		// The field is not in the other version, which therefore does not show it.
		u := s.must(t, http.StatusOK, "GET", gadgetPath("v1")+"/a", "").object(t)
		if u.GetAPIVersion() != "example.com/v1" || len(u.Object["spec"].(map[string]any)) != 0 {
			t.Errorf("as v1: %v", u.Object)
		}
		var list unstructured.UnstructuredList
		if err := list.UnmarshalJSON(s.must(t, http.StatusOK, "GET", gadgetPath("v1"), "").body); err != nil || list.Items[0].GetAPIVersion() != "example.com/v1" {
			t.Errorf("list as v1: %v %v", list, err)
		}
		s.must(t, http.StatusBadRequest, "POST", gadgetPath("v1"), `{"apiVersion":"example.com/v1beta1","kind":"Gadget","metadata":{"name":"b"}}`)
		// With the storage version, what is stored from now on changes.
		var crd apiextensionsv1.CustomResourceDefinition
		s.must(t, http.StatusOK, "GET", definitionsPath+"/"+name, "").decode(t, &crd)
		crd.Spec.Versions[0].Storage, crd.Spec.Versions[1].Storage = true, false
		s.must(t, http.StatusOK, "PUT", definitionsPath+"/"+name, string(mustJSON(t, &crd))).decode(t, &crd)
		if got := strings.Join(crd.Status.StoredVersions, ","); got != "v1beta1,v1" {
			t.Errorf("stored versions %s", got)
		}
		stored := func(version string) func(context.Context) (bool, error) {
			return func(ctx context.Context) (bool, error) {
				kv, err := s.stored(ctx, "/registry/example.com/gadgets/default/a")
				return err == nil && strings.HasPrefix(kv, `{"apiVersion":"example.com/`+version+`"`), err
			}
		}
		if ok, err := stored("v1beta1")(t.Context()); !ok {
			t.Errorf("the object is not stored as v1beta1: %v", err)
		}
		touch := 0
		err := wait.PollUntilContextTimeout(t.Context(), poll, patience, true, func(ctx context.Context) (bool, error) {
			touch++ // until the server knows of the new storage version
			s.must(t, http.StatusOK, "PATCH", gadgetPath("v1")+"/a", fmt.Sprintf(`{"spec":{"size":"s%d"}}`, touch), contentType("application/merge-patch+json"))
			return stored("v1")(ctx)
		})
		if err != nil {
			t.Error("writes still store v1beta1")
		}
		// A version that objects may be stored in cannot go.
		crd.Spec.Versions = crd.Spec.Versions[:1]
		crd.ResourceVersion = s.must(t, http.StatusOK, "GET", definitionsPath+"/"+name, "").object(t).GetResourceVersion()
		s.must(t, http.StatusUnprocessableEntity, "PUT", definitionsPath+"/"+name, string(mustJSON(t, &crd)))
	})
}

// stored reads a value of the store.
func (s *server) stored(ctx context.Context, key string) (string, error) {
	o, err := s.Registry().Cache().Get(ctx, key, cache.Read{})
	if err != nil {
		return "", err
	}
	return string(o.Value), nil
}

// converter is a conversion webhook between size and width.
func converter(t *testing.T, spoil func(*apiextensionsv1.ConversionResponse)) string {
	t.Helper()
	hook := httptest.NewTLSServer(answering(t, spoil))
	t.Cleanup(hook.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	return fmt.Sprintf(`{"strategy":"Webhook","webhook":{"conversionReviewVersions":["v1"],"clientConfig":{"url":%q,"caBundle":%q}}}`,
		hook.URL+"/convert", base64.StdEncoding.EncodeToString(ca))
}

// answering is what a converter does.
func answering(t *testing.T, spoil func(*apiextensionsv1.ConversionResponse)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: "Success"}}
		for _, raw := range review.Request.Objects {
			u := &unstructured.Unstructured{}
			if err := u.UnmarshalJSON(raw.Raw); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			from, to := "size", "width"
			if review.Request.DesiredAPIVersion == "example.com/v1" {
				from, to = to, from
			}
			if spec, ok := u.Object["spec"].(map[string]any); ok && spec[from] != nil {
				spec[to] = spec[from]
				delete(spec, from)
			}
			u.SetAPIVersion(review.Request.DesiredAPIVersion)
			u.SetLabels(map[string]string{"converted": "yes"})
			u.SetFinalizers([]string{"example.com/no"}) // not for webhooks to say
			response.ConvertedObjects = append(response.ConvertedObjects, runtime.RawExtension{Object: u})
		}
		spoil(response)
		review.Request, review.Response = nil, response
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Errorf("answer: %v", err)
		}
	}
}

func TestCustomVersionsWithWebhook(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, gadgets(converter(t, func(*apiextensionsv1.ConversionResponse) {}), "v1"))
		u := s.must(t, http.StatusCreated, "POST", gadgetPath("v1beta1"), `{"apiVersion":"example.com/v1beta1","kind":"Gadget","metadata":{"name":"a"},"spec":{"width":"7"}}`).object(t)
		if width, _, _ := unstructured.NestedString(u.Object, "spec", "width"); width != "7" || u.GetAPIVersion() != "example.com/v1beta1" {
			t.Errorf("created %v", u.Object)
		}
		u = s.must(t, http.StatusOK, "GET", gadgetPath("v1")+"/a", "").object(t)
		if size, _, _ := unstructured.NestedString(u.Object, "spec", "size"); size != "7" || u.GetLabels()["converted"] != "yes" || len(u.GetFinalizers()) > 0 {
			t.Errorf("as v1 %v", u.Object)
		}
		u = s.must(t, http.StatusOK, "PATCH", gadgetPath("v1beta1")+"/a", `{"spec":{"width":"8"}}`, contentType("application/merge-patch+json")).object(t)
		if width, _, _ := unstructured.NestedString(u.Object, "spec", "width"); width != "8" {
			t.Errorf("patched %v", u.Object)
		}
		s.must(t, http.StatusOK, "DELETE", gadgetPath("v1beta1")+"/a", "")
	})
}

func TestConversionWebhookThatLies(t *testing.T) {
	for name, spoil := range map[string]func(*apiextensionsv1.ConversionResponse){
		"fails":         func(r *apiextensionsv1.ConversionResponse) { r.Result.Status = "Failure" },
		"other request": func(r *apiextensionsv1.ConversionResponse) { r.UID = "x" },
		"no object":     func(r *apiextensionsv1.ConversionResponse) { r.ConvertedObjects = nil },
		"other name": func(r *apiextensionsv1.ConversionResponse) {
			r.ConvertedObjects[0].Object.(*unstructured.Unstructured).SetName("b")
		},
		"bad label": func(r *apiextensionsv1.ConversionResponse) {
			r.ConvertedObjects[0].Object.(*unstructured.Unstructured).SetLabels(map[string]string{"a b": ""})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.define(t, gadgets(converter(t, spoil), "v1"))
			s.must(t, http.StatusInternalServerError, "POST", gadgetPath("v1beta1"), `{"apiVersion":"example.com/v1beta1","kind":"Gadget","metadata":{"name":"a"},"spec":{"width":"7"}}`)
			s.must(t, http.StatusCreated, "POST", gadgetPath("v1"), `{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"a"},"spec":{"size":"7"}}`)
			s.must(t, http.StatusOK, "GET", gadgetPath("v1")+"/a", "")
		})
	}
}

func TestDefinitionNames(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, gadgets(`{"strategy":"None"}`, "v1"))
		rival := strings.NewReplacer("gadgets.example.com", "things.example.com", `"plural":"gadgets"`, `"plural":"things","singular":"thing"`).Replace(gadgets(`{"strategy":"None"}`, "v1"))
		s.must(t, http.StatusCreated, "POST", definitionsPath, rival)
		crd := s.untilDefinition(t, "things.example.com", func(crd *apiextensionsv1.CustomResourceDefinition) bool {
			return conditionIs(crd, apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionFalse)
		})
		if !conditionIs(crd, apiextensionsv1.Established, apiextensionsv1.ConditionFalse) || crd.Status.AcceptedNames.Plural != "things" || crd.Status.AcceptedNames.Kind != "" {
			t.Errorf("status %+v", crd.Status)
		}
		s.must(t, http.StatusNotFound, "GET", "/apis/example.com/v1/things", "")
		// The name becomes free.
		s.must(t, http.StatusOK, "DELETE", definitionsPath+"/gadgets.example.com", "")
		s.untilEstablished(t, "things.example.com")
		s.must(t, http.StatusOK, "GET", "/apis/example.com/v1/things", "")
		bad := strings.Replace(rival, "things.example.com", "other.example.com", 1)
		st := s.must(t, http.StatusUnprocessableEntity, "POST", definitionsPath, bad).status(t)
		if len(st.Details.Causes) != 1 || st.Details.Causes[0].Field != "metadata.name" {
			t.Errorf("causes %+v", st.Details.Causes)
		}
		s.must(t, http.StatusUnprocessableEntity, "POST", definitionsPath, strings.ReplaceAll(rival, "example.com", "example.k8s.io"))
	})
}

func TestDefinitionWaitsForItsObjects(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		name := s.define(t, widgetDefinition)
		s.must(t, http.StatusCreated, "POST", widgetsPath, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"held","finalizers":["example.com/hold"]},"spec":{"color":"red"}}`)
		s.must(t, http.StatusCreated, "POST", widgetsPath, widget("free", `{"color":"red"}`))
		s.must(t, http.StatusOK, "DELETE", definitionsPath+"/"+name, "")
		err := wait.PollUntilContextTimeout(t.Context(), poll, patience, true, func(context.Context) (bool, error) {
			return s.do(t, "GET", widgetsPath+"/free", "").code == http.StatusNotFound &&
				s.do(t, "POST", widgetsPath, widget("late", `{"color":"red"}`)).code == http.StatusForbidden, nil
		})
		if err != nil {
			t.Fatal("objects can still be made")
		}
		crd := s.untilDefinition(t, name, func(crd *apiextensionsv1.CustomResourceDefinition) bool {
			return conditionIs(crd, apiextensionsv1.Terminating, apiextensionsv1.ConditionTrue)
		})
		if crd.DeletionTimestamp == nil || len(crd.Finalizers) != 1 {
			t.Errorf("the definition that is being deleted: %+v", crd.ObjectMeta)
		}
		s.must(t, http.StatusOK, "PATCH", widgetsPath+"/held", `{"metadata":{"finalizers":null}}`, contentType("application/merge-patch+json"))
		err = wait.PollUntilContextTimeout(t.Context(), poll, patience, true, func(context.Context) (bool, error) {
			return s.do(t, "GET", definitionsPath+"/"+name, "").code == http.StatusNotFound, nil
		})
		if err != nil {
			t.Fatal("the definition stays although its objects are gone")
		}
	})
}

// ruled declares a kind with validation rules.
const ruled = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"ruleds.example.com"},"spec":{
	"group":"example.com","scope":"Cluster","names":{"plural":"ruleds","kind":"Ruled"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{
	"type":"object","properties":{"spec":{"type":"object",
	 "x-kubernetes-validations":[
	  {"rule":"self.min <= self.max","messageExpression":"self.max > 2 ? 'too large' : 'far too large'","reason":"FieldValueForbidden","fieldPath":".min"},
	  {"rule":"!oldSelf.hasValue() || self.max >= oldSelf.value().max","optionalOldSelf":true,"message":"max may not shrink"}],
	 "properties":{"min":{"type":"integer"},"max":{"type":"integer"},
	  "name":{"type":"string","maxLength":16,"x-kubernetes-validations":[{"rule":"self == oldSelf","message":"name is immutable"}]},
	  "odd":{"type":"string","maxLength":5}}}}}}}]}}`

func TestValidationRules(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		name := s.define(t, ruled)
		const path = "/apis/example.com/v1/ruleds"
		body := func(spec string) string {
			return `{"apiVersion":"example.com/v1","kind":"Ruled","metadata":{"name":"a"},"spec":` + spec + `}`
		}
		st := s.must(t, http.StatusUnprocessableEntity, "POST", path, body(`{"min":3,"max":1,"name":"n"}`)).status(t)
		if c := st.Details.Causes; len(c) != 1 || c[0].Field != "spec.min" || c[0].Type != "FieldValueForbidden" || !strings.Contains(c[0].Message, "far too large") {
			t.Errorf("causes %+v", c)
		}
		s.must(t, http.StatusCreated, "POST", path, body(`{"min":1,"max":5,"name":"n","odd":"fits"}`))
		patch := func(code int, text string) *answer {
			t.Helper()
			return s.must(t, code, "PATCH", path+"/a", text, contentType("application/merge-patch+json"))
		}
		patch(http.StatusUnprocessableEntity, `{"spec":{"max":4}}`)
		patch(http.StatusUnprocessableEntity, `{"spec":{"name":"m"}}`)
		patch(http.StatusOK, `{"spec":{"max":6}}`)
		// What was right when it was written may stay (ratcheting).
		tight := `[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/odd/maxLength","value":2}]`
		s.must(t, http.StatusOK, "PATCH", definitionsPath+"/"+name, tight, contentType("application/json-patch+json"))
		err := wait.PollUntilContextTimeout(t.Context(), poll, patience, true, func(context.Context) (bool, error) {
			return s.do(t, "PATCH", path+"/a?dryRun=All", `{"spec":{"odd":"fit"}}`, contentType("application/merge-patch+json")).code == http.StatusUnprocessableEntity, nil
		})
		if err != nil {
			t.Fatal("the new schema is not in force")
		}
		patch(http.StatusOK, `{"spec":{"max":7}}`)
		// A rule that may cost too much is refused.
		costly := strings.ReplaceAll(strings.ReplaceAll(ruled, "ruleds", "costlies"), `"odd":{"type":"string","maxLength":5}`,
			`"odd":{"type":"array","items":{"type":"array","items":{"type":"string"},"x-kubernetes-validations":[{"rule":"self.all(a, self.all(b, self.all(c, a != b + c)))"}]}}`)
		s.must(t, http.StatusUnprocessableEntity, "POST", definitionsPath, strings.ReplaceAll(costly, "Ruled", "Costly"))
	})
}
