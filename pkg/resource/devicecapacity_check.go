package resource

import (
	"math"
	"math/big"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxValidValues is how many sizes a share of a device may have.
const maxValidValues = 10

// checkDeviceCapacity: only a device that several claims may share says what
// a share may be.
func checkDeviceCapacity(path *field.Path, capacity map[resourcev1.QualifiedName]resourcev1.DeviceCapacity, shared bool) field.ErrorList {
	var errs field.ErrorList
	for _, name := range sortedKeys(capacity) {
		errs = append(errs, checkQualifiedName(path, string(name))...)
		c, p := capacity[name], path.Key(string(name)).Child("requestPolicy")
		switch policy := c.RequestPolicy; {
		case policy == nil:
		case !shared:
			errs = append(errs, field.Forbidden(p, "allowMultipleAllocations must be true"))
		case len(policy.ValidValues) > 0 && policy.ValidRange != nil:
			errs = append(errs, field.Forbidden(p, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`))
		case len(policy.ValidValues) > 0 && policy.Default == nil:
			errs = append(errs, field.Required(p.Child("default"), "required when validValues is defined"))
		case len(policy.ValidValues) > 0:
			errs = append(errs, checkValidValues(p.Child("validValues"), policy, c.Value)...)
		case policy.ValidRange != nil && policy.Default == nil:
			errs = append(errs, field.Required(p.Child("default"), "required when validRange is defined"))
		case policy.ValidRange != nil:
			errs = append(errs, checkValidRange(p.Child("validRange"), policy.ValidRange, *policy.Default, c.Value)...)
		}
	}
	return errs
}

func checkValidValues(path *field.Path, policy *resourcev1.CapacityRequestPolicy, capacity resource.Quantity) field.ErrorList {
	list := policy.ValidValues
	var errs field.ErrorList
	for i := 1; i < len(list); i++ {
		if list[i-1].Cmp(list[i]) > 0 {
			errs = append(errs, field.Invalid(path.Index(i), list[i].String(), "values must be sorted in ascending order"))
		}
	}
	found := false
	errs = append(errs, checkKeyed(path, list, maxValidValues, func(q *resource.Quantity) string { return exact(*q).RatString() },
		func(p *field.Path, q *resource.Quantity) field.ErrorList {
			found = found || q.Cmp(*policy.Default) == 0
			if q.Cmp(capacity) > 0 {
				return field.ErrorList{field.Invalid(p, q.String(), "option is larger than capacity value: "+capacity.String())}
			}
			return nil
		})...)
	if !found {
		errs = append(errs, field.Invalid(path, policy.Default.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

func checkValidRange(path *field.Path, r *resourcev1.CapacityRequestPolicyRange, standard, capacity resource.Quantity) field.ErrorList {
	if r.Min == nil {
		return field.ErrorList{field.Required(path.Child("min"), "required when validRange is defined")}
	}
	var errs field.ErrorList
	bad := func(wrong bool, name string, q *resource.Quantity, text string) {
		if wrong {
			errs = append(errs, field.Invalid(path.Child(name), q.String(), text))
		}
	}
	bad(r.Min.Cmp(capacity) > 0, "min", r.Min, "min is larger than capacity value: "+capacity.String())
	bad(standard.Cmp(*r.Min) < 0, "default", &standard, "default is less than min: "+r.Min.String())
	if r.Max != nil {
		bad(r.Min.Cmp(*r.Max) > 0, "max", r.Min, "min is larger than max: "+r.Max.String())
		bad(r.Max.Cmp(capacity) > 0, "max", r.Max, "max is larger than capacity value: "+capacity.String())
		bad(standard.Cmp(*r.Max) > 0, "default", &standard, "default is more than max: "+r.Max.String())
	}
	bounds := checkBounds(path, r, standard)
	errs = append(errs, bounds...)
	if r.Step == nil {
		return errs
	}
	if r.Step.Sign() <= 0 {
		bad(true, "step", r.Step, "must be greater than zero")
		return errs
	}
	next := r.Min.DeepCopy()
	next.Add(*r.Step)
	bad(next.Cmp(capacity) > 0, "step", r.Step, "one step "+next.String()+" is larger than capacity value: "+capacity.String())
	if len(bounds) > 0 {
		return errs
	}
	for _, q := range []*resource.Quantity{&standard, r.Max} {
		if q != nil {
			steps := new(big.Rat).Sub(exact(*q), exact(*r.Min))
			bad(!steps.Quo(steps, exact(*r.Step)).IsInt(), "step", q,
				"value is not a multiple of a given step ("+r.Step.String()+") from ("+r.Min.String()+")")
		}
	}
	return errs
}

// checkBounds wants of a range what other programs can count with: whole
// numbers of 64 bits where there is a step, or thousandths.
func checkBounds(path *field.Path, r *resourcev1.CapacityRequestPolicyRange, standard resource.Quantity) field.ErrorList {
	bounds := []struct {
		name string
		q    *resource.Quantity
	}{{"default", &standard}, {"min", r.Min}, {"max", r.Max}, {"step", r.Step}}
	fraction := false
	for _, b := range bounds {
		fraction = fraction || b.q != nil && !exact(*b.q).IsInt()
	}
	var errs field.ErrorList
	for _, b := range bounds {
		switch {
		case b.q == nil:
		case fraction:
			if b.q.Cmp(*resource.NewMilliQuantity(b.q.MilliValue(), b.q.Format)) != 0 {
				errs = append(errs, field.Invalid(path.Child(b.name), b.q.String(), "value cannot be represented as a milli value"))
			}
		case r.Step == nil || r.Step.Sign() <= 0:
		case b.q.Sign() < 0:
			errs = append(errs, field.Invalid(path.Child(b.name), b.q.String(), "must be greater than or equal to 0"))
		case b.q.CmpInt64(math.MaxInt64) > 0:
			errs = append(errs, field.Invalid(path.Child(b.name), b.q.String(), "must not be larger than 9223372036854775807"))
		}
	}
	return errs
}

// exact is the number that q stands for.
func exact(q resource.Quantity) *big.Rat {
	q = q.DeepCopy()
	r, _ := new(big.Rat).SetString(q.AsDec().String())
	return r
}
