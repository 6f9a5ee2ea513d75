package expression

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/traits"
	"google.golang.org/protobuf/types/known/structpb"
	"k8s.io/apiserver/pkg/cel/mutation"
	"k8s.io/apiserver/pkg/cel/mutation/dynamic"
)

// Configuration is the fields of an ApplyConfiguration, whose parts have to be
// named after the fields that they are in.
func (v Value) Configuration() (map[string]any, error) {
	object, ok := v.v.(*dynamic.ObjectVal)
	if !ok {
		return nil, fmt.Errorf("unsupported return type from ApplyConfiguration expression: %v", typeName(v))
	}
	if err := object.CheckTypeNamesMatchFieldPathNames(); err != nil {
		return nil, fmt.Errorf("type mismatch: %w", err)
	}
	value := object.Value()
	if err, failed := value.(error); failed {
		return nil, err
	}
	fields, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("invalid return type: %T", value)
	}
	return fields, nil
}

func typeName(v Value) string {
	if v.v == nil {
		return "nothing"
	}
	return v.v.Type().TypeName()
}

// operation is one of a JSON patch, as it is encoded.
type operation struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	From  string          `json:"from,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

// Operations is the encoded form of a JSONPatch.
func (v Value) Operations() ([]byte, error) {
	list, ok := v.v.(traits.Lister)
	if !ok {
		return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array, not %s", typeName(v))
	}
	ops := []operation{}
	for it := list.Iterator(); it.HasNext() == types.True; {
		native, err := it.Next().ConvertToNative(reflect.TypeFor[*mutation.JSONPatchVal]())
		if err != nil {
			return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch: %w", err)
		}
		patch, ok := native.(*mutation.JSONPatchVal)
		if !ok {
			return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of %T", native)
		}
		op := operation{Op: patch.Op, Path: patch.Path, From: patch.From}
		if op.Value, err = patchValue(patch); err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return json.Marshal(ops)
}

func patchValue(patch *mutation.JSONPatchVal) (json.RawMessage, error) {
	if patch.Val == nil {
		return nil, nil
	}
	if object, ok := patch.Val.(*dynamic.ObjectVal); ok {
		if err := object.CheckTypeNamesMatchFieldPathNames(); err != nil {
			return nil, fmt.Errorf("type mismatch: %w", err)
		}
	}
	value, err := patch.Val.ConvertToNative(reflect.TypeFor[*structpb.Value]())
	if err != nil {
		return nil, fmt.Errorf("JSONPath valueExpression evaluated to a type that could not marshal to JSON: %w", err)
	}
	return json.Marshal(value)
}
