package placement

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Handler serves a Book below /apis/explain.coracle.dev/v1: discovery, and GET
// of a pod's placement, as an object or as a table. Who may read what is
// decided before it.
func Handler(b *Book) http.Handler { return handler{b} }

type handler struct{ book *Book }

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(strings.TrimSuffix(r.URL.Path, "/"), "/apis/"+GroupVersion().String())
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	resource := schema.GroupResource{Group: Group, Resource: Resource}
	switch {
	case !ok:
		refuse(w, nothing("there is nothing at "+r.URL.Path))
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		refuse(w, apierrors.NewMethodNotSupported(resource, strings.ToLower(r.Method)))
	case rest == "":
		answer(w, http.StatusOK, resources())
	case len(parts) == 4 && parts[0] == "namespaces" && parts[2] == Resource:
		p, known := h.book.Get(parts[1], parts[3])
		if !known {
			refuse(w, apierrors.NewNotFound(resource, parts[3]))
			return
		}
		if strings.Contains(r.Header.Get("Accept"), "as=Table") {
			answer(w, http.StatusOK, table(p))
			return
		}
		answer(w, http.StatusOK, p)
	default:
		refuse(w, nothing(fmt.Sprintf("there is nothing at %s: placements are read one by one at /apis/%s/namespaces/NAMESPACE/%s/POD",
			r.URL.Path, GroupVersion(), Resource)))
	}
}

func nothing(message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: message,
	}}
}

func refuse(w http.ResponseWriter, err *apierrors.StatusError) {
	s := err.Status()
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	answer(w, int(s.Code), &s)
}

func answer(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "encode the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // a client that left is no matter
}

// resources is the discovery document of the group version.
func resources() *metav1.APIResourceList {
	return &metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"}, GroupVersion: GroupVersion().String(),
		APIResources: []metav1.APIResource{{
			Name: Resource, SingularName: "podplacement", Namespaced: true, Kind: Kind, Verbs: metav1.Verbs{"get"}, ShortNames: []string{"why"},
		}},
	}
}

// Discovery is the same for the aggregated documents.
func Discovery() []apidiscoveryv2.APIResourceDiscovery {
	return []apidiscoveryv2.APIResourceDiscovery{{
		Resource: Resource, SingularResource: "podplacement", Scope: apidiscoveryv2.ScopeNamespace, Verbs: []string{"get"}, ShortNames: []string{"why"},
		ResponseKind: &metav1.GroupVersionKind{Group: Group, Version: Version, Kind: Kind},
	}}
}

// table is a placement as kubectl get prints it.
func table(p *PodPlacement) *metav1.Table {
	column := func(name, description string, priority int32) metav1.TableColumnDefinition {
		return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description, Priority: priority}
	}
	name := column("Name", "Name of the pod.", 0)
	name.Format = "name"
	meta := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: metav1.SchemeGroupVersion.String(), Kind: "PartialObjectMetadata"},
		ObjectMeta: p.ObjectMeta,
	}
	return &metav1.Table{
		TypeMeta: metav1.TypeMeta{APIVersion: metav1.SchemeGroupVersion.String(), Kind: "Table"},
		ColumnDefinitions: []metav1.TableColumnDefinition{
			name, column("Result", "What came of the last attempt.", 0), column("Node", "The chosen node.", 0),
			{Name: "Attempts", Type: "integer", Description: "How often the pod has been tried."},
			column("Message", "Why no node can take the pod.", 0),
		},
		Rows: []metav1.TableRow{{
			Cells:  []any{p.Name, string(p.Status.Result), p.Status.NodeName, p.Status.Attempts, p.Status.Message},
			Object: runtime.RawExtension{Object: meta},
		}},
	}
}
