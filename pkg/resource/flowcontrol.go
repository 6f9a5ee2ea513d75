package resource

import (
	"fmt"
	"math"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const flowcontrolGroup = "flowcontrol.apiserver.k8s.io"

// Defaults of a limited priority level and its queues, and the bounds of a
// flow schema's precedence.
const (
	defaultShares      = 30
	defaultQueues      = 64
	defaultHandSize    = 8
	defaultQueueLength = 50
	defaultPrecedence  = 1000
	maxPrecedence      = 10000
	maxQueues          = 10_000_000
	maxHandBits        = 60 // of a flow's hash, to deal a hand of queues from
)

func flowSchemas() *Resource {
	return define(Resource{
		Group: flowcontrolGroup, Version: "v1", Kind: "FlowSchema", Plural: "flowschemas",
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &flowcontrolv1.FlowSchema{} },
		NewList:             func() runtime.Object { return &flowcontrolv1.FlowSchemaList{} },
		Columns:             columns("Name", "PriorityLevel", "MatchingPrecedence:integer", "DistinguisherMethod", "Age", "MissingPL"),
	}, hooks[*flowcontrolv1.FlowSchema]{
		Default: func(f *flowcontrolv1.FlowSchema) {
			if f.Spec.MatchingPrecedence == 0 {
				f.Spec.MatchingPrecedence = defaultPrecedence
			}
		},
		Validate:       validateFlowSchema,
		ValidateStatus: validateFlowSchemaStatus,
		Row: func(f *flowcontrolv1.FlowSchema, now time.Time) []any {
			method, missing := "<none>", "?"
			if f.Spec.DistinguisherMethod != nil {
				method = string(f.Spec.DistinguisherMethod.Type)
			}
			for _, c := range f.Status.Conditions {
				if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
					missing = string(c.Status)
				}
			}
			return []any{f.Name, f.Spec.PriorityLevelConfiguration.Name, int64(f.Spec.MatchingPrecedence), method,
				age(f.CreationTimestamp, now), missing}
		},
	})
}

func validateFlowSchema(f *flowcontrolv1.FlowSchema) field.ErrorList {
	path, spec := field.NewPath("spec"), &f.Spec
	var errs field.ErrorList
	p := path.Child("matchingPrecedence")
	if spec.MatchingPrecedence <= 0 {
		errs = append(errs, field.Invalid(p, spec.MatchingPrecedence, "must be a positive value"))
	}
	if spec.MatchingPrecedence > maxPrecedence {
		errs = append(errs, field.Invalid(p, spec.MatchingPrecedence, fmt.Sprintf("must not be greater than %v", maxPrecedence)))
	}
	if spec.MatchingPrecedence == 1 && f.Name != flowcontrolv1.FlowSchemaNameExempt {
		errs = append(errs, field.Invalid(p, spec.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if d := spec.DistinguisherMethod; d != nil {
		errs = append(errs, checkOptional(path.Child("distinguisherMethod", "type"), &d.Type,
			flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType)...)
	}
	errs = append(errs, checkName(path.Child("priorityLevelConfiguration", "name"), spec.PriorityLevelConfiguration.Name, utilvalidation.IsDNS1123Subdomain)...)
	for i := range spec.Rules {
		errs = append(errs, checkFlowRule(path.Child("rules").Index(i), &spec.Rules[i])...)
	}
	return errs
}

func priorityLevelConfigurations() *Resource {
	return define(Resource{
		Group: flowcontrolGroup, Version: "v1", Kind: "PriorityLevelConfiguration", Plural: "prioritylevelconfigurations",
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &flowcontrolv1.PriorityLevelConfiguration{} },
		NewList:             func() runtime.Object { return &flowcontrolv1.PriorityLevelConfigurationList{} },
		Columns:             columns("Name", "Type", "NominalConcurrencyShares", "Queues", "HandSize", "QueueLengthLimit", "Age"),
	}, hooks[*flowcontrolv1.PriorityLevelConfiguration]{
		Default:        defaultPriorityLevel,
		Validate:       validatePriorityLevel,
		ValidateStatus: validatePriorityLevelStatus,
		Row: func(c *flowcontrolv1.PriorityLevelConfiguration, now time.Time) []any {
			var shares, queues, hand, length any = "<none>", "<none>", "<none>", "<none>"
			if l := c.Spec.Limited; l != nil {
				shares = int64(count(l.NominalConcurrencyShares, 0))
				if q := l.LimitResponse.Queuing; q != nil {
					queues, hand, length = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
				}
			}
			return []any{c.Name, string(c.Spec.Type), shares, queues, hand, length, age(c.CreationTimestamp, now)}
		},
	})
}

func defaultPriorityLevel(c *flowcontrolv1.PriorityLevelConfiguration) {
	if e := c.Spec.Exempt; e != nil {
		defaultCount(&e.NominalConcurrencyShares, 0)
		defaultCount(&e.LendablePercent, 0)
	}
	l := c.Spec.Limited
	if l == nil {
		return
	}
	defaultCount(&l.NominalConcurrencyShares, defaultShares)
	defaultCount(&l.LendablePercent, 0)
	if q := l.LimitResponse.Queuing; q != nil {
		if q.Queues == 0 {
			q.Queues = defaultQueues
		}
		if q.HandSize == 0 {
			q.HandSize = defaultHandSize
		}
		if q.QueueLengthLimit == 0 {
			q.QueueLengthLimit = defaultQueueLength
		}
	}
}

func validatePriorityLevel(c *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	path, spec := field.NewPath("spec"), &c.Spec
	errs := checkSet(path.Child("type"), spec.Type, flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)
	if (c.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) != (spec.Type == flowcontrolv1.PriorityLevelEnablementExempt) {
		errs = append(errs, field.Invalid(path.Child("type"), spec.Type, "type must be 'Exempt' if and only if name is 'exempt'"))
	}
	if e := spec.Exempt; e != nil {
		errs = append(errs, checkShares(path.Child("exempt"), e.NominalConcurrencyShares, e.LendablePercent)...)
	}
	l := spec.Limited
	switch {
	case spec.Type == flowcontrolv1.PriorityLevelEnablementExempt && l != nil:
		errs = append(errs, field.Forbidden(path.Child("limited"), "must be nil if the type is not Limited"))
	case spec.Type == flowcontrolv1.PriorityLevelEnablementLimited && spec.Exempt != nil:
		errs = append(errs, field.Forbidden(path.Child("exempt"), "must be nil if the type is Limited"))
	case spec.Type == flowcontrolv1.PriorityLevelEnablementLimited && l == nil:
		errs = append(errs, field.Required(path.Child("limited"), "must not be empty when type is Limited"))
	}
	if l == nil {
		return errs
	}
	return append(errs, checkLimited(path.Child("limited"), l)...)
}

func checkLimited(p *field.Path, l *flowcontrolv1.LimitedPriorityLevelConfiguration) field.ErrorList {
	errs := checkShares(p, l.NominalConcurrencyShares, l.LendablePercent)
	if n := l.BorrowingLimitPercent; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(p.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer"))
	}
	p = p.Child("limitResponse")
	q := l.LimitResponse.Queuing
	errs = append(errs, checkSet(p.Child("type"), l.LimitResponse.Type, flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)...)
	switch {
	case l.LimitResponse.Type == flowcontrolv1.LimitResponseTypeReject && q != nil:
		errs = append(errs, field.Forbidden(p.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited"))
	case l.LimitResponse.Type == flowcontrolv1.LimitResponseTypeQueue && q == nil:
		errs = append(errs, field.Required(p.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited"))
	}
	if q == nil {
		return errs
	}
	p = p.Child("queuing")
	for _, f := range []struct {
		name  string
		value int32
	}{{"queues", q.Queues}, {"handSize", q.HandSize}, {"queueLengthLimit", q.QueueLengthLimit}} {
		if f.value <= 0 {
			errs = append(errs, field.Invalid(p.Child(f.name), f.value, "must be positive"))
		}
	}
	if q.Queues > maxQueues {
		errs = append(errs, field.Invalid(p.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	if q.HandSize > q.Queues {
		errs = append(errs, field.Invalid(p.Child("handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	} else if bits := int(math.Ceil(math.Log2(float64(q.Queues)) * float64(q.HandSize))); q.HandSize > 0 && bits > maxHandBits {
		errs = append(errs, field.Invalid(p.Child("handSize"), q.HandSize,
			fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, maxHandBits)))
	}
	return errs
}

func checkShares(p *field.Path, shares, lendable *int32) field.ErrorList {
	var errs field.ErrorList
	if n := count(shares, 0); n < 0 {
		errs = append(errs, field.Invalid(p.Child("nominalConcurrencyShares"), n, "must be a non-negative integer"))
	}
	if n := count(lendable, 0); n < 0 || n > 100 {
		errs = append(errs, field.Invalid(p.Child("lendablePercent"), n, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validatePriorityLevelStatus(c, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	types := make([]string, len(c.Status.Conditions))
	for i := range types {
		types[i] = string(c.Status.Conditions[i].Type)
	}
	return checkConditionTypes(types)
}
