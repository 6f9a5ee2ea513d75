package apiserver_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/testcluster"
)

// TestConformance runs the checks of testdata/conformance.txt. Those with a
// server as an argument share one for each backend.
func TestConformance(t *testing.T) {
	servers := map[string]*server{"memory": newServer(t), "etcd": newServer(t, testcluster.WithBackend(startEtcd(t)))}
	for _, s := range servers {
		s.prepareExamples(t)
	}
	checks := alone()
	maps.Copy(checks, webhookChecks())
	for id, test := range together() {
		checks[id] = func(t *testing.T) {
			for _, backend := range []string{"memory", "etcd"} {
				t.Run(backend, func(t *testing.T) { test(t, servers[backend]) })
			}
		}
	}
	runChecks(t, conformanceList, checks)
}

// alone are checks that start their own servers.
func alone() map[string]check {
	return map[string]check{
		"APIM-053": checkFieldValidation,
		"APIM-055": checkFieldValidation,
		"APIM-082": checkExpiredToken,
		"APIM-088": checkResume,
		"APIM-090": checkWatchSelectors,
		"APIM-091": checkWatchSelector,
		"APIM-092": checkReplay,
		"APIM-030": checkStoredVersions,
		"APIM-031": checkStoredVersions,
		"APIM-056": elsewhere("../controllers", "TestPropagationPolicies"),
		"APIM-061": elsewhere("../controllers", "TestPropagationPolicies"),
		"APPS-008": elsewhere("../controllers", "TestFailedDaemonPodIsReplaced"),
		"APPS-010": elsewhere("../controllers", "TestDaemonSetRunsRollsAndFollowsLabels"),
		"APPS-012": elsewhere("../controllers", "TestDaemonSetRunsRollsAndFollowsLabels"),
		"APPS-015": elsewhere("../controllers/deployment", "TestRecreateNeverOverlaps"),
		"APPS-018": elsewhere("../controllers/deployment", "TestProportionalScaling"),
		"APPS-019": elsewhere("../controllers/deployment", "TestRolloverGivesAllToTheNewest"),
		"APPS-023": elsewhere(".", "TestEviction"),
		"APPS-037": elsewhere("../controllers", "TestReplicaSetAdoptsAndReleases"),
		"APPS-041": elsewhere("../controllers", "TestReplicationControllerScalesAdoptsAndReleases"),
		"APPS-043": elsewhere("../controllers", "TestReplicationControllerScalesAdoptsAndReleases"),
		"NET-013":  elsewhere("../controllers", "TestHandMadeEndpointsAreMirrored"),
		"INST-002": checkEventViews,
	}
}

// together are checks that share a server, and take care of each other.
func together() map[string]func(t *testing.T, s *server) {
	return map[string]func(t *testing.T, s *server){
		"APIM-001":  lifecycle("flowschemas.flowcontrol.apiserver.k8s.io"),
		"APIM-002":  lifecycle("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"),
		"APIM-014":  checkAdmissionDiscovery,
		"APIM-025":  checkAggregatedClient,
		"APIM-026":  checkDefinitionDiscovery,
		"APIM-027":  checkAggregated,
		"APIM-028":  checkDefinitionDiscovery,
		"APIM-032":  checkDefinitionWatch,
		"APIM-033":  checkDefinitionLife,
		"APIM-034":  checkDefinitionStatus,
		"APIM-035":  checkDefinitionsDeletedByLabel,
		"APIM-036":  checkDefinitionDefaults,
		"APIM-037":  checkDefinitionLife,
		"APIM-038":  checkDefinitionOpenAPI,
		"APIM-039":  checkDefinitionOpenAPI,
		"APIM-044":  checkDefinitionOpenAPI,
		"APIM-045":  checkDefinitionOpenAPI,
		"APIM-046":  checkDefinitionOpenAPI,
		"APIM-049":  checkApplyOfCustom,
		"APIM-050":  checkApplyOfCustom,
		"APIM-051":  checkApplyOfCustom,
		"APIM-052":  checkApplyOfCustom,
		"APIM-054":  checkApplyOfCustom,
		"NET-037":   checkKubernetesService,
		"APIM-047":  checkResourceLists,
		"APIM-048":  checkPreferredVersions,
		"APIM-063":  checkNamespaceFinalize,
		"APIM-064":  checkNamespaceUpdate,
		"APIM-065":  checkNamespaceStatus,
		"APIM-068":  checkNamespaceUpdate,
		"APIM-070":  lifecycle("resourcequotas"),
		"APIM-078":  lifecycle("resourcequotas"),
		"APIM-081":  checkChunks,
		"APIM-083":  checkReviewTable,
		"APIM-085":  lifecycle("validatingadmissionpolicies.admissionregistration.k8s.io"),
		"APIM-086":  lifecycle("validatingadmissionpolicybindings.admissionregistration.k8s.io"),
		"APIM-089":  checkWatchFromThePast,
		"APIM-093":  checkVersionPath,
		"APPS-006":  lifecycle("cronjobs.batch"),
		"APPS-007":  lifecycle("daemonsets.apps"),
		"APPS-013":  lifecycle("daemonsets.apps"),
		"APPS-014":  scales("deployments.apps"),
		"APPS-021":  lifecycle("deployments.apps"),
		"APPS-022":  lifecycle("poddisruptionbudgets.policy"),
		"APPS-024":  lifecycle("poddisruptionbudgets.policy"),
		"APPS-026":  lifecycle("poddisruptionbudgets.policy"),
		"APPS-030":  lifecycle("jobs.batch"),
		"APPS-033":  lifecycle("jobs.batch"),
		"APPS-036":  scales("replicasets.apps"),
		"APPS-038":  lifecycle("replicasets.apps"),
		"APPS-040":  lifecycle("replicasets.apps"),
		"APPS-042":  scales("replicationcontrollers"),
		"APPS-046":  lifecycle("replicationcontrollers"),
		"APPS-050":  scales("statefulsets.apps"),
		"APPS-051":  lifecycle("statefulsets.apps"),
		"APPS-054":  lifecycle("statefulsets.apps"),
		"AUTH-001":  checkSigningRequests,
		"AUTH-003":  checkAutomount,
		"AUTH-007":  lifecycle("serviceaccounts"),
		"AUTH-008":  lifecycle("serviceaccounts"),
		"INST-001":  lifecycle("events"),
		"INST-003":  lifecycle("events"),
		"INST-004":  lifecycle("events"),
		"NET-012":   lifecycle("endpointslices.discovery.k8s.io"),
		"NET-015":   lifecycle("ingresses.networking.k8s.io"),
		"NET-016":   lifecycle("ingressclasses.networking.k8s.io"),
		"NET-032":   lifecycle("services"),
		"NET-033":   lifecycle("services"),
		"NET-034":   checkKubernetesService,
		"NET-041":   lifecycle("endpoints"),
		"NODE-003":  checkEmptyKeys,
		"NODE-004":  lifecycle("configmaps"),
		"NODE-023":  checkEphemeralContainers,
		"NODE-035":  lifecycle("leases.coordination.k8s.io"),
		"NODE-038":  lifecycle("nodes"),
		"NODE-039":  lifecycle("podtemplates"),
		"NODE-040":  lifecycle("podtemplates"),
		"NODE-041":  lifecycle("podtemplates"),
		"NODE-047":  lifecycle("pods"),
		"NODE-049":  lifecycle("pods"),
		"NODE-068":  lifecycle("runtimeclasses.node.k8s.io"),
		"NODE-071":  checkEmptyKeys,
		"NODE-072":  lifecycle("secrets"),
		"NODE-079":  checkSysctls,
		"SCHED-002": lifecycle("limitranges"),
		"SCHED-008": checkPriorityClasses,
		"STOR-001":  lifecycle("csidrivers.storage.k8s.io"),
		"STOR-002":  checkInlineVolume,
		"STOR-003":  lifecycle("csinodes.storage.k8s.io"),
		"STOR-004":  lifecycle("csistoragecapacities.storage.k8s.io"),
		"STOR-014":  checkImmutable,
		"STOR-044":  lifecycle("persistentvolumes", "persistentvolumeclaims"),
		"STOR-045":  lifecycle("persistentvolumes", "persistentvolumeclaims"),
		"STOR-083":  lifecycle("storageclasses.storage.k8s.io"),
		"STOR-089":  lifecycle("volumeattachments.storage.k8s.io"),
		"STOR-090":  lifecycle("volumeattachments.storage.k8s.io"),
	}
}

const aggregatedForm = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func checkVersionPath(t *testing.T, s *server) {
	got := version.Info{}
	s.must(t, 200, "GET", "/version", "").decode(t, &got)
	if !regexp.MustCompile(`^[0-9]+$`).MatchString(got.Major) || !regexp.MustCompile(`^[0-9]+\+?$`).MatchString(got.Minor) {
		t.Errorf("version %+v", got)
	}
}

func checkAdmissionDiscovery(t *testing.T, s *server) {
	groups, err := s.Client.Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool {
		return g.Name == "admissionregistration.k8s.io" && g.PreferredVersion.Version == "v1"
	}) {
		t.Errorf("the groups are %v", groups.Groups)
	}
	list, err := s.Client.Discovery().ServerResourcesForGroupVersion("admissionregistration.k8s.io/v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
		if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == name }) {
			t.Errorf("no %s in %v", name, list.APIResources)
		}
	}
}

// checkAggregatedClient: what client-go makes of the aggregated documents is
// what the plain ones say.
func checkAggregatedClient(t *testing.T, s *server) {
	_, lists, err := s.Client.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			found[l.GroupVersion+"/"+r.Name] = true
		}
	}
	for _, res := range s.Registry().Table().All() {
		if name := res.GVK().GroupVersion().String() + "/" + res.Plural; !found[name] {
			t.Errorf("client-go does not find %s", name)
		}
	}
}

func checkAggregated(t *testing.T, s *server) {
	for _, path := range []string{"/api", "/apis"} {
		a := s.must(t, 200, "GET", path, "", accept(aggregatedForm))
		if doc := plain(t, a.body); doc["kind"] != "APIGroupDiscoveryList" || doc["apiVersion"] != "apidiscovery.k8s.io/v2" || len(doc["items"].([]any)) == 0 {
			t.Errorf("%s is a %v of %v", path, doc["kind"], doc["apiVersion"])
		}
	}
}

func groupsOf(t *testing.T, s *server) []metav1.APIGroup {
	t.Helper()
	list := &metav1.APIGroupList{}
	s.must(t, 200, "GET", "/apis", "").decode(t, list)
	return list.Groups
}

func checkResourceLists(t *testing.T, s *server) {
	for _, g := range groupsOf(t, s) {
		for _, v := range g.Versions {
			list := &metav1.APIResourceList{}
			s.must(t, 200, "GET", "/apis/"+v.GroupVersion, "").decode(t, list)
			if list.GroupVersion != v.GroupVersion || len(list.APIResources) == 0 {
				t.Errorf("/apis/%s says it is %q with %d resources", v.GroupVersion, list.GroupVersion, len(list.APIResources))
			}
		}
	}
}

func checkPreferredVersions(t *testing.T, s *server) {
	for _, g := range groupsOf(t, s) {
		if !slices.Contains(g.Versions, g.PreferredVersion) {
			t.Errorf("group %s prefers %v of %v", g.Name, g.PreferredVersion, g.Versions)
		}
		one := &metav1.APIGroup{}
		s.must(t, 200, "GET", "/apis/"+g.Name, "").decode(t, one)
		if one.Name != g.Name || one.PreferredVersion != g.PreferredVersion {
			t.Errorf("/apis/%s is %v", g.Name, one)
		}
	}
}

func checkNamespaceFinalize(t *testing.T, s *server) {
	ctx, namespaces := t.Context(), s.Client.CoreV1().Namespaces()
	s.makeNamespace(t, "finalized")
	for _, want := range [][]corev1.FinalizerName{{"kubernetes", "example.com/extra"}, {"kubernetes"}} {
		ns, err := namespaces.Get(ctx, "finalized", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ns.Spec.Finalizers = want
		if _, err := namespaces.Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if ns, err = namespaces.Get(ctx, "finalized", metav1.GetOptions{}); err != nil || !slices.Equal(ns.Spec.Finalizers, want) {
			t.Errorf("finalizers %v (%v), want %v", ns.Spec.Finalizers, err, want)
		}
	}
	s.must(t, 200, "DELETE", "/api/v1/namespaces/finalized", "")
}

func checkNamespaceUpdate(t *testing.T, s *server) {
	ctx, namespaces := t.Context(), s.Client.CoreV1().Namespaces()
	ns, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "updated-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns.Labels["a"] = "updated"
	if ns, err = namespaces.Update(ctx, ns, metav1.UpdateOptions{}); err != nil || ns.Labels["a"] != "updated" {
		t.Errorf("after the update: %v (%v)", ns, err)
	}
	s.must(t, 200, "PATCH", "/api/v1/namespaces/"+ns.Name, `{"metadata":{"labels":{"b":"patched"}}}`, contentType("application/strategic-merge-patch+json"))
	if ns, err = namespaces.Get(ctx, ns.Name, metav1.GetOptions{}); err != nil || ns.Labels["b"] != "patched" || ns.Labels["a"] != "updated" || ns.Labels["kubernetes.io/metadata.name"] != ns.Name {
		t.Errorf("after the patch: %v (%v)", ns, err)
	}
}

func checkNamespaceStatus(t *testing.T, s *server) {
	ctx, namespaces := t.Context(), s.Client.CoreV1().Namespaces()
	s.makeNamespace(t, "phase")
	got := &corev1.Namespace{}
	s.must(t, 200, "GET", "/api/v1/namespaces/phase/status", "").decode(t, got)
	if got.Status.Phase != corev1.NamespaceActive {
		t.Errorf("a new namespace is %q", got.Status.Phase)
	}
	s.must(t, 200, "PATCH", "/api/v1/namespaces/phase/status", `{"status":{"conditions":[{"type":"Patched","status":"True"}]}}`, contentType(mergeBody)).decode(t, got)
	got.Status.Conditions = append(got.Status.Conditions, corev1.NamespaceCondition{Type: "Updated", Status: corev1.ConditionFalse})
	if _, err := namespaces.UpdateStatus(ctx, got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := namespaces.Get(ctx, "phase", metav1.GetOptions{}); err != nil || len(got.Status.Conditions) != 2 || got.Status.Phase != corev1.NamespaceActive {
		t.Errorf("the status is %v (%v)", got.Status, err)
	}
}

// checkChunks: APIM-081.
func checkChunks(t *testing.T, s *server) {
	const objects, limit = 400, 17
	s.makeNamespace(t, "chunks")
	path := "/api/v1/namespaces/chunks/podtemplates"
	for i := range objects {
		s.must(t, 201, "POST", path, fmt.Sprintf(`{"metadata":{"name":"template-%04d"},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}`, i), contentType(jsonBody))
	}
	var names []string
	version, token := "", ""
	for {
		list := &corev1.PodTemplateList{}
		s.must(t, 200, "GET", path+"?limit="+strconv.Itoa(limit)+"&continue="+token, "").decode(t, list)
		if version == "" {
			version = list.ResourceVersion
		}
		for _, item := range list.Items {
			names = append(names, item.Name)
		}
		left := objects - len(names)
		if list.ResourceVersion != version || len(list.Items) > limit || (list.Continue == "") != (left == 0) {
			t.Fatalf("a page of %d at %s, the first at %s, %d left, token %q", len(list.Items), list.ResourceVersion, version, left, list.Continue)
		}
		if token = list.Continue; token == "" {
			if list.RemainingItemCount != nil {
				t.Errorf("the last page has %d left", *list.RemainingItemCount)
			}
			break
		}
		if list.RemainingItemCount == nil || int(*list.RemainingItemCount) != left {
			t.Errorf("%v left after %d", list.RemainingItemCount, len(names))
		}
	}
	if len(names) != objects || !slices.IsSorted(names) {
		t.Errorf("%d objects in pages", len(names))
	}
	all := &corev1.PodTemplateList{}
	s.must(t, 200, "GET", path+"?limit=401", "").decode(t, all)
	if len(all.Items) != objects || all.Continue != "" || all.RemainingItemCount != nil {
		t.Errorf("one page has %d with token %q", len(all.Items), all.Continue)
	}
	s.must(t, 200, "DELETE", path, "")
}

func checkReviewTable(t *testing.T, s *server) {
	a := s.must(t, 406, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`,
		contentType(jsonBody), accept("application/json;as=Table;v=v1;g=meta.k8s.io"))
	if status := a.status(t); status.Reason != metav1.StatusReasonNotAcceptable {
		t.Errorf("%v", status)
	}
}

func checkKubernetesService(t *testing.T, s *server) {
	list, err := s.Client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil || !slices.ContainsFunc(list.Items, func(svc corev1.Service) bool {
		return svc.Name == "kubernetes" && svc.Namespace == "default" && svc.Spec.Ports[0].Port == 443
	}) {
		t.Errorf("the Services are %v (%v)", list, err)
	}
}

func checkEmptyKeys(t *testing.T, s *server) {
	for _, plural := range []string{"configmaps", "secrets"} {
		a := s.must(t, 422, "POST", "/api/v1/namespaces/default/"+plural, `{"metadata":{"name":"empty"},"data":{"":"dg=="}}`, contentType(jsonBody))
		if status := a.status(t); !strings.Contains(status.Message, "data[]: Invalid value") {
			t.Errorf("%s: %s", plural, status.Message)
		}
	}
}

func checkImmutable(t *testing.T, s *server) {
	for _, plural := range []string{"configmaps", "secrets"} {
		path := "/api/v1/namespaces/default/" + plural
		s.must(t, 201, "POST", path, `{"metadata":{"name":"fixed"},"data":{"k":"dg=="}}`, contentType(jsonBody))
		s.must(t, 200, "PATCH", path+"/fixed", `{"data":{"k":"dw=="}}`, contentType(mergeBody))
		s.must(t, 200, "PATCH", path+"/fixed", `{"immutable":true}`, contentType(mergeBody))
		for _, change := range []string{`{"data":{"k":"dg=="}}`, `{"immutable":false}`, `{"immutable":null}`, `{"data":{"l":"dg=="}}`} {
			if status := s.must(t, 422, "PATCH", path+"/fixed", change, contentType(mergeBody)).status(t); status.Reason != metav1.StatusReasonInvalid {
				t.Errorf("%s %s: %v", plural, change, status)
			}
		}
		s.must(t, 200, "PATCH", path+"/fixed", `{"metadata":{"labels":{"x":"y"}}}`, contentType(mergeBody))
		s.must(t, 200, "DELETE", path+"/fixed", "")
	}
}

func checkSysctls(t *testing.T, s *server) {
	p := pod("sysctls", "")
	for _, name := range []string{"foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."} {
		if p.Spec.SecurityContext == nil {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{}
		}
		p.Spec.SecurityContext.Sysctls = append(p.Spec.SecurityContext.Sysctls, corev1.Sysctl{Name: name, Value: "1"})
	}
	_, err := s.Client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
	refused(t, err, 422, metav1.StatusReasonInvalid, `Invalid value: "foo-"`)
	if text := err.Error(); !strings.Contains(text, `Invalid value: "bar.."`) || strings.Contains(text, "safe-and-unsafe") || strings.Contains(text, "kernel.shmmax") {
		t.Errorf("%v", err)
	}
}

func checkPriorityClasses(t *testing.T, s *server) {
	const path = "/apis/scheduling.k8s.io/v1/priorityclasses"
	s.must(t, 201, "POST", path, `{"metadata":{"name":"fixed"},"value":7}`, contentType(jsonBody))
	s.must(t, 200, "PATCH", path+"/fixed", `{"description":"changed","metadata":{"labels":{"x":"y"}}}`, contentType(mergeBody))
	for _, change := range []string{`{"value":8}`, `{"preemptionPolicy":"Never"}`} {
		s.must(t, 422, "PATCH", path+"/fixed", change, contentType(mergeBody)).status(t)
	}
	lifecycle("priorityclasses.scheduling.k8s.io")(t, s)
}

func checkInlineVolume(t *testing.T, s *server) {
	pods := s.Client.CoreV1().Pods("default")
	p := pod("inline", "")
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "example.com"}}}}
	if _, err := pods.Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.must(t, 200, "PATCH", "/api/v1/namespaces/default/pods/inline", `{"metadata":{"labels":{"x":"y"}}}`, contentType(mergeBody))
	if got, err := pods.Get(t.Context(), "inline", metav1.GetOptions{}); err != nil || got.Spec.Volumes[0].CSI == nil || got.Labels["x"] != "y" {
		t.Errorf("%v (%v)", got, err)
	}
	if err := pods.Delete(t.Context(), "inline", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

func checkEphemeralContainers(t *testing.T, s *server) {
	ctx, pods := t.Context(), s.Client.CoreV1().Pods("default")
	s.makePod(t, pod("debugged", "n"))
	s.must(t, 200, "PATCH", "/api/v1/namespaces/default/pods/debugged/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"one","image":"i"}]}}`,
		contentType("application/strategic-merge-patch+json"))
	got, err := pods.Get(ctx, "debugged", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got.Spec.EphemeralContainers = append(got.Spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "two", Image: "i"}})
	if got, err = pods.UpdateEphemeralContainers(ctx, "debugged", got, metav1.UpdateOptions{}); err != nil || len(got.Spec.EphemeralContainers) != 2 {
		t.Errorf("%v (%v)", got, err)
	}
	s.must(t, 422, "PATCH", "/api/v1/namespaces/default/pods/debugged/ephemeralcontainers", `{"spec":{"ephemeralContainers":null}}`, contentType(mergeBody)).status(t)
	s.must(t, 200, "DELETE", "/api/v1/namespaces/default/pods/debugged?gracePeriodSeconds=0", "")
}

// checkSigningRequests: AUTH-001.
func checkSigningRequests(t *testing.T, s *server) {
	lifecycle("certificatesigningrequests.certificates.k8s.io")(t, s)
	for _, res := range s.Registry().Table().All() {
		if res.Plural != "certificatesigningrequests" {
			continue
		}
		u := example(t, res)
		u.SetName("approved")
		path := kindPath(res, res.Version, "")
		s.must(t, 201, "POST", path, string(mustJSON(t, u.Object)), contentType(jsonBody))
		s.must(t, 200, "GET", path+"/approved/approval", "")
		approve := `{"status":{"conditions":[{"type":"Approved","status":"True","reason":"Test","message":"by a test"}]}}`
		s.must(t, 200, "PATCH", path+"/approved/approval", approve, contentType(mergeBody))
		if a := s.must(t, 200, "GET", path+"/approved", ""); !strings.Contains(string(a.body), `"Approved"`) {
			t.Errorf("approved: %s", a.body)
		}
		s.must(t, 200, "DELETE", path+"/approved", "")
	}
}

// checkAutomount: AUTH-003.
func checkAutomount(t *testing.T, s *server) {
	ctx := t.Context()
	for _, account := range []*bool{nil, new(false), new(true)} {
		for _, wish := range []*bool{nil, new(false), new(true)} {
			name := fmt.Sprintf("mount-%s-%s", text(account), text(wish))
			if _, err := s.Client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, AutomountServiceAccountToken: account}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			p := pod(name, "")
			p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = name, wish
			p = s.makePod(t, p)
			mounted := slices.ContainsFunc(p.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount"
			})
			want := wish == nil && (account == nil || *account) || wish != nil && *wish
			if mounted != want {
				t.Errorf("account %s, pod %s: mounted %t", text(account), text(wish), mounted)
			}
			s.must(t, 200, "DELETE", "/api/v1/namespaces/default/pods/"+name, "")
		}
	}
}

func text(b *bool) string {
	if b == nil {
		return "unset"
	}
	return strconv.FormatBool(*b)
}

// checkWatchFromThePast: APIM-089.
func checkWatchFromThePast(t *testing.T, s *server) {
	s.makeNamespace(t, "past")
	const path = "/api/v1/namespaces/past/configmaps"
	patch := func(n int) string {
		t.Helper()
		cm := &corev1.ConfigMap{}
		s.must(t, 200, "PATCH", path+"/a", fmt.Sprintf(`{"data":{"n":"%d"}}`, n), contentType(mergeBody)).decode(t, cm)
		return cm.ResourceVersion
	}
	s.must(t, 201, "POST", path, `{"metadata":{"name":"a"}}`, contentType(jsonBody))
	first := patch(1)
	patch(2)
	s.must(t, 200, "DELETE", path+"/a", "")
	w := s.watch(t, path+"?watch=1&resourceVersion="+first)
	if e := w.want("MODIFIED", "a"); e.Data["n"] != "2" {
		t.Errorf("the first event is %s", e.Object)
	}
	w.want("DELETED", "a")
}

// checkWatchSelectors: APIM-090.
func checkWatchSelectors(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		begin := s.makeConfigMap(t, configMap("begin"))
		open := func(selector string) *stream {
			return s.watch(t, configMaps("?watch=1&resourceVersion=%s&labelSelector=%s", begin.ResourceVersion, selector))
		}
		a, b, both := open("l%3D1"), open("l%3D2"), open("l%20in%20(1,2)")
		for i, name := range []string{"a", "b", "c"} {
			cm := configMap(name)
			cm.Labels = map[string]string{"l": strconv.Itoa(i + 1)}
			s.makeConfigMap(t, cm)
		}
		for _, name := range []string{"a", "b", "c"} {
			s.must(t, 200, "PATCH", configMaps("/")+name, `{"data":{"n":"1"}}`, contentType(mergeBody))
			s.remove(t, name)
		}
		for _, kind := range []string{"ADDED", "MODIFIED", "DELETED"} {
			a.want(kind, "a")
			b.want(kind, "b")
		}
		for _, want := range []string{"ADDED a", "ADDED b", "MODIFIED a", "DELETED a", "MODIFIED b", "DELETED b"} {
			kind, name, _ := strings.Cut(want, " ")
			both.want(kind, name)
		}
	})
}
