package fairness

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

// DefaultPriorityLevels are the levels that every cluster has; those named
// exempt and catch-all are mandatory. Callers own the result.
func DefaultPriorityLevels() []*flowcontrolv1.PriorityLevelConfiguration {
	return append(mandatoryLevels(),
		queued("system", 30, 33, 64, 6),
		queued("node-high", 40, 25, 64, 6),
		queued("leader-election", 10, 0, 16, 4),
		queued("workload-high", 40, 50, 128, 6),
		queued("workload-low", 100, 90, 128, 6),
		queued("global-default", 20, 50, 128, 6),
	)
}

func mandatoryLevels() []*flowcontrolv1.PriorityLevelConfiguration {
	return []*flowcontrolv1.PriorityLevelConfiguration{
		{ObjectMeta: defaultMeta(flowcontrolv1.PriorityLevelConfigurationNameExempt), Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type:   flowcontrolv1.PriorityLevelEnablementExempt,
			Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: new(int32), LendablePercent: new(int32)},
		}},
		limited(flowcontrolv1.PriorityLevelConfigurationNameCatchAll, 5, 0, flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}),
	}
}

// queueLength is that of every default level.
const queueLength = 50

func queued(name string, shares, lendable, queues, hand int32) *flowcontrolv1.PriorityLevelConfiguration {
	return limited(name, shares, lendable, flowcontrolv1.LimitResponse{
		Type:    flowcontrolv1.LimitResponseTypeQueue,
		Queuing: &flowcontrolv1.QueuingConfiguration{Queues: queues, HandSize: hand, QueueLengthLimit: queueLength},
	})
}

func limited(name string, shares, lendable int32, response flowcontrolv1.LimitResponse) *flowcontrolv1.PriorityLevelConfiguration {
	return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: defaultMeta(name), Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: &shares, LendablePercent: &lendable, LimitResponse: response,
		},
	}}
}

func defaultMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Annotations: map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}}
}

// Ways to tell the flows of a schema apart.
const (
	noDistinction = flowcontrolv1.FlowDistinguisherMethodType("")
	byUser        = flowcontrolv1.FlowDistinguisherMethodByUserType
	byNamespace   = flowcontrolv1.FlowDistinguisherMethodByNamespaceType
)

// DefaultFlowSchemas are the schemas that every cluster has; those named exempt
// and catch-all are mandatory. Callers own the result.
func DefaultFlowSchemas() []*flowcontrolv1.FlowSchema {
	everyone := groups(auth.GroupUnauthenticated, auth.GroupAuthenticated)
	systemAccounts := flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindServiceAccount, ServiceAccount: &flowcontrolv1.ServiceAccountSubject{
		Namespace: metav1.NamespaceSystem, Name: flowcontrolv1.NameAll,
	}}
	return append(mandatorySchemas(),
		flowSchema("probes", flowcontrolv1.PriorityLevelConfigurationNameExempt, 2, noDistinction, flowcontrolv1.PolicyRulesWithSubjects{
			Subjects:         everyone,
			NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/readyz", "/livez"}}},
		}),
		flowSchema("system-leader-election", "leader-election", 100, byUser, flowcontrolv1.PolicyRulesWithSubjects{
			Subjects:      append(users(auth.UserManager, auth.UserScheduler), systemAccounts),
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{leases("get", "create", "update")},
		}),
		flowSchema("system-node-high", "node-high", 400, byUser, flowcontrolv1.PolicyRulesWithSubjects{
			Subjects: groups(auth.GroupNodes),
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{
				{
					Verbs: []string{flowcontrolv1.VerbAll}, APIGroups: []string{""}, Resources: []string{"nodes", "nodes/status"},
					ClusterScope: true, Namespaces: []string{flowcontrolv1.NamespaceEvery},
				},
				leases(flowcontrolv1.VerbAll),
			},
		}),
		flowSchema("system-nodes", "system", 500, byUser, all(groups(auth.GroupNodes))),
		flowSchema("kube-controller-manager", "workload-high", 800, byNamespace, all(users(auth.UserManager))),
		flowSchema("kube-scheduler", "workload-high", 800, byNamespace, all(users(auth.UserScheduler))),
		flowSchema("kube-system-service-accounts", "workload-high", 900, byNamespace, all([]flowcontrolv1.Subject{systemAccounts})),
		flowSchema("service-accounts", "workload-low", 9000, byUser, all(groups(auth.GroupServiceAccounts))),
		flowSchema("global-default", "global-default", 9900, byUser, all(everyone)),
	)
}

func mandatorySchemas() []*flowcontrolv1.FlowSchema {
	return []*flowcontrolv1.FlowSchema{
		flowSchema(flowcontrolv1.FlowSchemaNameExempt, flowcontrolv1.PriorityLevelConfigurationNameExempt, 1, noDistinction, all(groups(auth.GroupMasters))),
		flowSchema(flowcontrolv1.FlowSchemaNameCatchAll, flowcontrolv1.PriorityLevelConfigurationNameCatchAll, 10000, byUser,
			all(groups(auth.GroupUnauthenticated, auth.GroupAuthenticated))),
	}
}

func flowSchema(name, level string, precedence int32, method flowcontrolv1.FlowDistinguisherMethodType, rules flowcontrolv1.PolicyRulesWithSubjects) *flowcontrolv1.FlowSchema {
	s := &flowcontrolv1.FlowSchema{ObjectMeta: defaultMeta(name), Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
		MatchingPrecedence:         precedence, Rules: []flowcontrolv1.PolicyRulesWithSubjects{rules},
	}}
	if method != noDistinction {
		s.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: method}
	}
	return s
}

// all is everything that subjects ask for.
func all(subjects []flowcontrolv1.Subject) flowcontrolv1.PolicyRulesWithSubjects {
	return flowcontrolv1.PolicyRulesWithSubjects{
		Subjects: subjects,
		ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
			Verbs: []string{flowcontrolv1.VerbAll}, APIGroups: []string{flowcontrolv1.APIGroupAll}, Resources: []string{flowcontrolv1.ResourceAll},
			ClusterScope: true, Namespaces: []string{flowcontrolv1.NamespaceEvery},
		}},
		NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{flowcontrolv1.VerbAll}, NonResourceURLs: []string{flowcontrolv1.NonResourceAll}}},
	}
}

func leases(verbs ...string) flowcontrolv1.ResourcePolicyRule {
	return flowcontrolv1.ResourcePolicyRule{
		Verbs: verbs, APIGroups: []string{coordinationv1.GroupName}, Resources: []string{"leases"}, Namespaces: []string{flowcontrolv1.NamespaceEvery},
	}
}

func groups(names ...string) []flowcontrolv1.Subject {
	out := make([]flowcontrolv1.Subject, len(names))
	for i, n := range names {
		out[i] = flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: n}}
	}
	return out
}

func users(names ...string) []flowcontrolv1.Subject {
	out := make([]flowcontrolv1.Subject, len(names))
	for i, n := range names {
		out[i] = flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: n}}
	}
	return out
}
