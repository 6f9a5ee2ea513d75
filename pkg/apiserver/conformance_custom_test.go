package apiserver_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The checks of CustomResourceDefinitions. Each has a group of its own, as
// they share a server.

// thing declares kind Thing in a group; versions is JSON.
func thing(group, versions string) string {
	return fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.%s","labels":{"for":%q}},"spec":{
		"group":%q,"scope":"Namespaced","names":{"plural":"things","kind":"Thing"},"versions":[%s]}}`, group, group, group, versions)
}

// thingVersion is a version whose objects have a schema of JSON properties.
func thingVersion(name string, served, storage bool, properties string) string {
	return fmt.Sprintf(`{"name":%q,"served":%t,"storage":%t,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{%s}}}}`,
		name, served, storage, properties)
}

func thingsPath(group, version string) string {
	return "/apis/" + group + "/" + version + "/namespaces/default/things"
}

func thingBody(group, version, name, rest string) string {
	return fmt.Sprintf(`{"apiVersion":"%s/%s","kind":"Thing","metadata":{"name":%q}%s}`, group, version, name, rest)
}

const anySpec = `"spec":{"type":"object","x-kubernetes-preserve-unknown-fields":true}`

// groupOf is the end of the names of the groups of a check.
func groupOf(t *testing.T) string {
	return strings.ToLower(strings.ReplaceAll(strings.Split(t.Name(), "/")[1], "-", "")) + ".test"
}

// checkDefinitionLife: APIM-033, APIM-037. A definition is created, served and
// deleted, and its kind is in discovery.
func checkDefinitionLife(t *testing.T, s *server) {
	group := "life." + groupOf(t)
	name := s.define(t, thing(group, thingVersion("v1", true, true, anySpec)))
	for path, want := range map[string]string{"/apis": `"apiextensions.k8s.io"`, "/apis/apiextensions.k8s.io": `"apiextensions.k8s.io/v1"`, "/apis/apiextensions.k8s.io/v1": `"customresourcedefinitions"`} {
		if a := s.must(t, http.StatusOK, "GET", path, ""); !strings.Contains(string(a.body), want) {
			t.Errorf("%s lacks %s", path, want)
		}
	}
	s.must(t, http.StatusCreated, "POST", thingsPath(group, "v1"), thingBody(group, "v1", "a", ""))
	s.must(t, http.StatusOK, "DELETE", definitionsPath+"/"+name, "")
	eventually(t, "the definition stays", func(context.Context) (bool, error) {
		return s.do(t, "GET", definitionsPath+"/"+name, "").code == http.StatusNotFound, nil
	})
}

// checkDefinitionDiscovery: APIM-026, APIM-028. A new kind is in aggregated
// discovery, raw and through the client.
func checkDefinitionDiscovery(t *testing.T, s *server) {
	group := "found." + groupOf(t)
	s.define(t, thing(group, thingVersion("v1", true, true, anySpec)))
	eventually(t, "aggregated discovery lacks the kind", func(context.Context) (bool, error) {
		return strings.Contains(string(s.must(t, http.StatusOK, "GET", "/apis", "", accept(aggregatedForm)).body), group), nil
	})
	_, lists, err := s.Client.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		if l.GroupVersion == group+"/v1" && len(l.APIResources) == 2 && l.APIResources[0].Kind == "Thing" {
			return
		}
	}
	t.Error("client-go does not find the kind")
}

// checkDefinitionWatch: APIM-032. Watches of custom objects and of definitions.
func checkDefinitionWatch(t *testing.T, s *server) {
	group := "watched." + groupOf(t)
	definitions := s.watch(t, definitionsPath+"?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&fieldSelector=metadata.name%3Dthings."+group)
	name := s.define(t, thing(group, thingVersion("v1", true, true, anySpec)))
	definitions.want("ADDED", name)
	path := thingsPath(group, "v1")
	w := s.watch(t, path+"?watch=1&fieldSelector=metadata.name%3Da")
	s.must(t, http.StatusCreated, "POST", path, thingBody(group, "v1", "b", ""))
	s.must(t, http.StatusCreated, "POST", path, thingBody(group, "v1", "a", ""))
	s.must(t, http.StatusOK, "PATCH", path+"/a", `{"spec":{"x":1}}`, contentType("application/merge-patch+json"))
	s.must(t, http.StatusOK, "DELETE", path+"/a", "")
	for _, kind := range []string{"ADDED", "MODIFIED", "DELETED"} {
		w.want(kind, "a")
	}
	s.must(t, http.StatusOK, "DELETE", definitionsPath+"/"+name, "")
	for e := definitions.want("MODIFIED", name); e.Type != "DELETED"; {
		e = definitions.next()
	}
}

// checkDefinitionStatus: APIM-034. Conditions set through /status stay; a spec
// sent there does not apply.
func checkDefinitionStatus(t *testing.T, s *server) {
	group := "status." + groupOf(t)
	path := definitionsPath + "/" + s.define(t, thing(group, thingVersion("v1", true, true, anySpec)))
	patch := `{"spec":{"names":{"kind":"Other"}},"status":{"conditions":[%s{"type":"Checked","status":"True","reason":"Test","message":"%s","lastTransitionTime":null}]}}`
	var crd apiextensionsv1.CustomResourceDefinition
	s.must(t, http.StatusOK, "GET", path+"/status", "").decode(t, &crd)
	kept := strings.TrimSuffix(strings.TrimPrefix(string(mustJSON(t, crd.Status.Conditions)), "["), "]") + ","
	s.must(t, http.StatusOK, "PATCH", path+"/status", fmt.Sprintf(patch, kept, "patched"), contentType("application/merge-patch+json"))
	shown := func(message string) {
		t.Helper()
		crd = apiextensionsv1.CustomResourceDefinition{}
		s.must(t, http.StatusOK, "GET", path, "").decode(t, &crd)
		last := crd.Status.Conditions[len(crd.Status.Conditions)-1]
		if last.Type != "Checked" || last.Message != message || crd.Spec.Names.Kind != "Thing" {
			t.Errorf("%s: %+v of a %s", message, last, crd.Spec.Names.Kind)
		}
	}
	shown("patched")
	crd.Status.Conditions[len(crd.Status.Conditions)-1].Message = "updated"
	crd.Spec.Names.Kind = "Other"
	s.must(t, http.StatusOK, "PUT", path+"/status", string(mustJSON(t, &crd)))
	shown("updated")
}

// checkDefinitionsDeletedByLabel: APIM-035.
func checkDefinitionsDeletedByLabel(t *testing.T, s *server) {
	id := groupOf(t)
	s.define(t, thing("stays."+id, thingVersion("v1", true, true, anySpec)))
	for i := range 10 {
		body := strings.Replace(thing(fmt.Sprintf("g%d.%s", i, id), thingVersion("v1", true, true, anySpec)), `"labels":{`, `"labels":{"many":"yes",`, 1)
		s.must(t, http.StatusCreated, "POST", definitionsPath, body)
	}
	count := func(selector string) int {
		list := &apiextensionsv1.CustomResourceDefinitionList{}
		s.must(t, http.StatusOK, "GET", definitionsPath+"?labelSelector="+selector, "").decode(t, list)
		return len(list.Items)
	}
	if n := count("many%3Dyes"); n != 10 {
		t.Fatalf("%d definitions have the label", n)
	}
	s.must(t, http.StatusOK, "DELETE", definitionsPath+"?labelSelector=many%3Dyes", "")
	eventually(t, "definitions stay", func(context.Context) (bool, error) { return count("many%3Dyes") == 0, nil })
	if count("for%3Dstays."+id) != 1 {
		t.Error("another definition is gone")
	}
}

// checkDefinitionDefaults: APIM-036. A default that comes later shows on reads
// of old objects, and is kept in new ones.
func checkDefinitionDefaults(t *testing.T, s *server) {
	group := "defaults." + groupOf(t)
	field := func(a, b string) string {
		return `"a":{"type":"string"` + a + `},"b":{"type":"string"` + b + `}`
	}
	define := func(properties string) string { return thing(group, thingVersion("v1", true, true, properties)) }
	name := s.define(t, define(field("", "")))
	path := thingsPath(group, "v1")
	s.must(t, http.StatusCreated, "POST", path, thingBody(group, "v1", "old", ""))
	schema := func(properties string) {
		s.must(t, http.StatusOK, "PATCH", definitionsPath+"/"+name, `[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties","value":{`+properties+`}}]`, contentType("application/json-patch+json"))
	}
	shows := func(object, a, b string) {
		t.Helper()
		eventually(t, object+" does not show the default", func(context.Context) (bool, error) {
			u := s.must(t, http.StatusOK, "GET", path+"/"+object, "").object(t)
			gotA, _, _ := unstructured.NestedString(u.Object, "a")
			gotB, _, _ := unstructured.NestedString(u.Object, "b")
			return gotA == a && gotB == b, nil
		})
	}
	schema(field(`,"default":"A"`, ""))
	shows("old", "A", "")
	s.must(t, http.StatusCreated, "POST", path, thingBody(group, "v1", "new", ""))
	schema(field("", `,"default":"B"`))
	shows("old", "", "B")
	shows("new", "A", "B")
}

// checkDefinitionOpenAPI: APIM-038, APIM-039, APIM-044, APIM-045, APIM-046.
// /openapi/v2 has what is served, and only that.
func checkDefinitionOpenAPI(t *testing.T, s *server) {
	shows := func(what string, definitions map[string]bool) {
		t.Helper()
		eventually(t, "OpenAPI after "+what, func(context.Context) (bool, error) {
			doc := string(s.must(t, http.StatusOK, "GET", "/openapi/v2", "").body)
			for name, want := range definitions {
				if strings.Contains(doc, `"`+name+`"`) != want {
					return false, nil
				}
			}
			return true, nil
		})
	}
	one, two := "one."+groupOf(t), "two."+groupOf(t)
	id := strings.TrimSuffix(groupOf(t), ".test")
	name := s.define(t, thing(one, thingVersion("v1", true, true, anySpec)+","+thingVersion("v1beta1", true, false, anySpec)))
	s.define(t, thing(two, thingVersion("v1beta1", true, true, anySpec)))
	s.define(t, strings.NewReplacer("things", "others", "Thing", "Other").Replace(thing(two, thingVersion("v1beta1", true, true, anySpec))))
	shows("creation", map[string]bool{"test." + id + ".one.v1.Thing": true, "test." + id + ".one.v1beta1.Thing": true, "test." + id + ".two.v1beta1.Thing": true, "test." + id + ".two.v1beta1.Other": true})
	change := func(patch string) {
		s.must(t, http.StatusOK, "PATCH", definitionsPath+"/"+name, patch, contentType("application/json-patch+json"))
	}
	change(`[{"op":"replace","path":"/spec/versions/1/served","value":false}]`)
	shows("a version is not served any more", map[string]bool{"test." + id + ".one.v1.Thing": true, "test." + id + ".one.v1beta1.Thing": false, "test." + id + ".two.v1beta1.Thing": true})
	change(`[{"op":"replace","path":"/spec/versions/1/served","value":true},{"op":"replace","path":"/spec/versions/1/name","value":"v2"}]`)
	shows("a version has a new name", map[string]bool{"test." + id + ".one.v1.Thing": true, "test." + id + ".one.v1beta1.Thing": false, "test." + id + ".one.v2.Thing": true})
}

// checkApplyOfCustom: APIM-049, APIM-050, APIM-051, APIM-052, APIM-054. Strict
// validation of applied custom objects.
func checkApplyOfCustom(t *testing.T, s *server) {
	group, free := "apply."+groupOf(t), "free."+groupOf(t)
	s.define(t, thing(free, `{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}`))
	s.define(t, thing(group, thingVersion("v1", true, true, `"spec":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{
		"template":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true},
		"ports":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["containerPort","protocol"],
		 "items":{"type":"object","required":["containerPort","protocol"],"properties":{"containerPort":{"type":"integer"},"protocol":{"type":"string"},"name":{"type":"string"}}}}}}`)))
	apply := func(code int, group, body, says string) {
		t.Helper()
		a := s.must(t, code, "PATCH", thingsPath(group, "v1")+"/a?fieldManager=m&fieldValidation=Strict", body, contentType(applyBody))
		if code != http.StatusOK && code != http.StatusCreated && !strings.Contains(a.status(t).Message, says) {
			t.Errorf("the message is %q, want %q in it", a.status(t).Message, says)
		}
	}
	head := "apiVersion: " + group + "/v1\nkind: Thing\nmetadata:\n  name: a\n"
	apply(http.StatusCreated, free, "apiVersion: "+free+"/v1\nkind: Thing\nmetadata:\n  name: a\nunknown: 1\nspec:\n  x: y\n", "")
	apply(http.StatusCreated, group, head+"spec:\n  ports:\n  - containerPort: 80\n    protocol: TCP\n  - containerPort: 80\n    protocol: UDP\n", "")
	apply(http.StatusBadRequest, group, head+"unknownField: 1\nspec: {}\n", ".unknownField: field not declared in schema")
	apply(http.StatusBadRequest, group, head+"spec:\n  foo: a\n  bar: 1\n\n  foo: b\n", `line 9: key "foo" already set in map`)
	apply(http.StatusBadRequest, group, head+"  unknownMeta: 1\nspec:\n  template:\n    apiVersion: v1\n    kind: Pod\n    metadata:\n      name: x\n      unknownSubMeta: 1\n",
		".spec.template.metadata.unknownSubMeta: field not declared in schema")
}

// checkStoredVersions: APIM-030, APIM-031. A webhook converts objects that were
// stored before and after the storage version changed.
func checkStoredVersions(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		name := s.define(t, gadgets(converter(t, func(*apiextensionsv1.ConversionResponse) {}), "v1"))
		s.must(t, http.StatusCreated, "POST", gadgetPath("v1"), gadget("a"))
		u := s.must(t, http.StatusOK, "GET", gadgetPath("v1beta1")+"/a", "").object(t)
		if width, _, _ := unstructured.NestedString(u.Object, "spec", "width"); width != "a" {
			t.Errorf("converted: %v", u.Object)
		}
		s.must(t, http.StatusOK, "PATCH", definitionsPath+"/"+name, `[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`,
			contentType("application/json-patch+json"))
		n := 0
		eventually(t, "objects are still stored in the version before", func(ctx context.Context) (bool, error) {
			n++
			body := gadget(fmt.Sprint("b", n))
			s.must(t, http.StatusCreated, "POST", gadgetPath("v1"), body)
			kv, err := s.stored(ctx, fmt.Sprint("/registry/example.com/gadgets/default/b", n))
			return strings.HasPrefix(kv, `{"apiVersion":"example.com/v1beta1"`), err
		})
		var list unstructured.UnstructuredList
		if err := list.UnmarshalJSON(s.must(t, http.StatusOK, "GET", gadgetPath("v1beta1"), "").body); err != nil || len(list.Items) != n+1 {
			t.Fatalf("the list has %d items (%v), want %d", len(list.Items), err, n+1)
		}
		for _, u := range list.Items {
			if width, _, _ := unstructured.NestedString(u.Object, "spec", "width"); width != u.GetName() || u.GetAPIVersion() != "example.com/v1beta1" {
				t.Errorf("listed: %v", u.Object)
			}
		}
	})
}
