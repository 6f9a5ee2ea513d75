package expression

import (
	"strings"

	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/openapi"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Typed returns a composed scope in which `object` and `oldObject` are of a
// schema without references, and `params` of another; nil is for any. It
// finds mistakes that would show with objects only; what it compiles is not
// for evaluation.
func (c *Compiler) Typed(object, params *spec.Schema) *Scope {
	s := c.Composed(Stored)
	s.types = typed{typeOf(object, "object"), typeOf(params, "params")}
	return s
}

func typeOf(s *spec.Schema, name string) *apiservercel.DeclType {
	if s == nil {
		return nil
	}
	t := common.SchemaDeclType(&openapi.Schema{Schema: s}, true)
	if t == nil {
		return nil
	}
	return t.MaybeAssignTypeName("kubernetes.typed." + name)
}

// Issues are what the compiler found in the expression, empty when nothing.
func (p *Program) Issues() string {
	if p.err == nil {
		return ""
	}
	return strings.TrimPrefix(p.err.Error(), compilationFailed)
}
