package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	jsonType  = "application/json"
	protoType = "application/vnd.kubernetes.protobuf"
	mergeType = "application/merge-patch+json"

	crdGroup = "bench.coracle.dev"
	crdPath  = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
)

// customResource defines the kind of the comparison: a schema with types,
// bounds, a list, a map and a status, as operators write them.
const customResource = `{
"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
"metadata":{"name":"widgets.bench.coracle.dev"},
"spec":{"group":"bench.coracle.dev","scope":"Namespaced",
"names":{"plural":"widgets","singular":"widget","kind":"Widget","listKind":"WidgetList"},
"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},
"schema":{"openAPIV3Schema":{"type":"object","required":["spec"],"properties":{
"spec":{"type":"object","required":["size","items"],"properties":{
"size":{"type":"integer","minimum":0,"maximum":1000000},
"color":{"type":"string","enum":["red","green","blue"]},
"note":{"type":"string","maxLength":200000},
"items":{"type":"array","maxItems":64,"items":{"type":"object","required":["name"],"properties":{
"name":{"type":"string","pattern":"^[a-z0-9-]+$"},"weight":{"type":"integer"},"value":{"type":"string"}}}},
"params":{"type":"object","additionalProperties":{"type":"string"}}}},
"status":{"type":"object","properties":{"phase":{"type":"string"}}}}}}}]}}`

// kind is a sort of object that load is made of. One kind has the same form on
// every server that serves it.
type kind struct {
	name string
	// path is that of the collection.
	path string
	// object makes the body of a create, with so much filler.
	object func(name string, fill int) string
	// patch makes a merge patch that changes one field to one of n.
	patch func(n int) string
	// fill is how much filler makes an object as large as it shall be.
	fill int
}

func filler(n int) string {
	const text = "all that is gold does not glitter "
	return strings.Repeat(text, n/len(text)+1)[:n]
}

func widgets() *kind {
	return &kind{
		name: "custom resources", path: "/apis/" + crdGroup + "/v1/namespaces/default/widgets",
		object: func(name string, fill int) string {
			return fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Widget","metadata":{"name":%q,"namespace":"default",`+
				`"labels":{"app":"bench","tier":"backend"},"annotations":{"bench.coracle.dev/owner":"nobody"}},`+
				`"spec":{"size":7,"color":"green","items":[{"name":"first","weight":1,"value":"alpha"},{"name":"second","weight":2,"value":"beta"}],`+
				`"params":{"mode":"fast","retries":"3"},"note":%q}}`, crdGroup, name, filler(fill))
		},
		patch: func(n int) string { return fmt.Sprintf(`{"spec":{"size":%d}}`, n) },
	}
}

func configMaps() *kind {
	return &kind{
		name: "ConfigMaps", path: "/api/v1/namespaces/default/configmaps",
		object: func(name string, fill int) string {
			return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":"default",`+
				`"labels":{"app":"bench","tier":"backend"},"annotations":{"bench.coracle.dev/owner":"nobody"}},`+
				`"data":{"size":"7","color":"green","mode":"fast","retries":"3","note":%q}}`, name, filler(fill))
		},
		patch: func(n int) string { return fmt.Sprintf(`{"data":{"size":"%d"}}`, n) },
	}
}

func secrets() *kind {
	return &kind{
		name: "Secrets", path: "/api/v1/namespaces/default/secrets",
		object: func(name string, fill int) string {
			return fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":"default",`+
				`"labels":{"app":"bench","tier":"backend"},"annotations":{"bench.coracle.dev/owner":"nobody"}},`+
				`"data":{"user":"YmVuY2g=","password":%q}}`, name, base64.StdEncoding.EncodeToString([]byte(filler(fill))))
		},
		patch: func(n int) string { return fmt.Sprintf(`{"stringData":{"user":"user-%d"}}`, n) },
	}
}

func pods() *kind {
	container := func(name string, port int, probes string) string {
		return fmt.Sprintf(`{"name":%q,"image":"registry.example.com/team/%s:1.24.3","imagePullPolicy":"IfNotPresent",`+
			`"args":["--listen=:%d"],`+
			`"ports":[{"name":"http","containerPort":%d,"protocol":"TCP"}],`+
			`"env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"MODE","value":"production"}],`+
			`"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"256Mi"}},`+
			`"volumeMounts":[{"name":"config","mountPath":"/etc/server"},{"name":"scratch","mountPath":"/tmp"}],`+
			`%s"securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true}}`, name, name, port, port, probes)
	}
	const probes = `"livenessProbe":{"httpGet":{"path":"/livez","port":8080},"periodSeconds":10},` +
		`"readinessProbe":{"httpGet":{"path":"/readyz","port":8080},"periodSeconds":5},`
	return &kind{
		name: "pods", path: "/api/v1/namespaces/default/pods",
		object: func(name string, fill int) string {
			return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":"default",`+
				`"labels":{"app":"bench","tier":"backend"},"annotations":{"bench.coracle.dev/note":%q}},`+
				`"spec":{"containers":[%s,%s],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"serviceAccountName":"default",`+
				`"securityContext":{"runAsUser":1000},`+
				`"tolerations":[{"key":"dedicated","operator":"Equal","value":"bench","effect":"NoSchedule"}],`+
				`"volumes":[{"name":"config","configMap":{"name":"server"}},{"name":"scratch","emptyDir":{}}]}}`,
				name, filler(fill), container("server", 8080, probes), container("sidecar", 9090, ""))
		},
		patch: func(n int) string { return fmt.Sprintf(`{"metadata":{"labels":{"tier":"t%d"}}}`, n) },
	}
}

// workload makes the requests of one kind for one server.
type workload struct {
	create, get, remove func(name string) *request
	patch               func(name string, n int) *request
	list                func(accept string) *request
	watch               func(version string) *request
}

// of is the workload of an API server.
func (k *kind) of() *workload {
	return &workload{
		create: func(name string) *request {
			return &request{method: "POST", path: k.path, contentType: jsonType, accept: jsonType, body: []byte(k.object(name, k.fill))}
		},
		get: func(name string) *request {
			return &request{method: "GET", path: k.path + "/" + name, accept: jsonType}
		},
		remove: func(name string) *request {
			return &request{method: "DELETE", path: k.path + "/" + name, accept: jsonType}
		},
		patch: func(name string, n int) *request {
			return &request{method: "PATCH", path: k.path + "/" + name, contentType: mergeType, accept: jsonType, body: []byte(k.patch(n))}
		},
		list: func(accept string) *request { return &request{method: "GET", path: k.path, accept: accept} },
		watch: func(version string) *request {
			return &request{method: "GET", path: k.path + "?watch=true&allowWatchBookmarks=false&resourceVersion=" + version, accept: jsonType}
		},
	}
}

// sizes are how large the answers of a server were, by the row's name.
type sizes map[string]int

// canned is the workload of the floor: the requests of k with the same bodies,
// answered with as many bytes as the project's server answered.
func (k *kind) canned(answers sizes) *workload {
	real := k.of()
	as := func(verb, row string, r *request) *request {
		r.path = fmt.Sprintf("/%s/%d%s", verb, max(2, answers[row]), r.path)
		return r
	}
	return &workload{
		create: func(name string) *request { return as("answer", rowCreate, real.create(name)) },
		get:    func(name string) *request { return as("answer", rowGet, real.get(name)) },
		remove: func(name string) *request { return as("answer", rowDelete, real.remove(name)) },
		patch:  func(name string, n int) *request { return as("publish", rowPatch, real.patch(name, n)) },
		list: func(accept string) *request {
			row := rowList
			if accept == protoType {
				row = rowListProto
			}
			return as("answer", row, real.list(accept))
		},
		watch: func(string) *request { return &request{method: "GET", path: "/watch", accept: jsonType} },
	}
}

// roleForBench lets the user that sends the load do what it does, so that
// authorization has a role to look through.
func roleForBench() []*request {
	post := func(path, body string) *request {
		return &request{method: "POST", path: path, contentType: jsonType, accept: jsonType, body: []byte(body)}
	}
	const rbac = "/apis/rbac.authorization.k8s.io/v1/"
	return []*request{
		post(rbac+"clusterroles", `{"metadata":{"name":"bench"},"rules":[`+
			`{"apiGroups":[""],"resources":["configmaps","pods","secrets"],"verbs":["*"]},`+
			`{"apiGroups":["`+crdGroup+`"],"resources":["widgets"],"verbs":["*"]}]}`),
		post(rbac+"clusterrolebindings", `{"metadata":{"name":"bench"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"bench"},`+
			`"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"bench"}]}`),
	}
}

// roleForOther gives a second user the same role.
func roleForOther() *request {
	return &request{method: "POST", path: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", contentType: jsonType, accept: jsonType,
		body: []byte(`{"metadata":{"name":"other"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"bench"},` +
			`"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"` + otherUser + `"}]}`)}
}

// versionOf reads the resourceVersion of one object.
func versionOf(object []byte) (string, error) {
	const mark = `"resourceVersion":"`
	i := bytes.LastIndex(object, []byte(mark))
	if i < 0 {
		return "", fmt.Errorf("an object has no resourceVersion: %.200s", object)
	}
	rest := object[i+len(mark):]
	j := bytes.IndexByte(rest, '"')
	if j < 0 {
		return "", fmt.Errorf("an object's resourceVersion does not end: %.200s", object)
	}
	return string(rest[:j]), nil
}
