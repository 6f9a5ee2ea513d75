package custom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"coracle/pkg/callout"
	"coracle/pkg/resource"
)

// Bounds of a call to a conversion webhook, which may hang, lie or send without
// end: it harms its own objects only.
const (
	webhookTimeout = 30 * time.Second
	maxWebhookBody = 16 << 20
)

// HTTPWebhooks calls conversion webhooks.
type HTTPWebhooks struct{ Client *callout.Client }

// Convert implements Webhooks.
func (w *HTTPWebhooks) Convert(request context.Context, hook *apiextensionsv1.WebhookConversion, objects []*unstructured.Unstructured, apiVersion string) ([]*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(request, webhookTimeout)
	defer cancel()
	out, err := w.convert(ctx, hook, objects, apiVersion)
	if err != nil && request.Err() != nil {
		err = resource.ErrAbandoned
	}
	if err != nil {
		return nil, fmt.Errorf("conversion webhook for %s failed: %w", objects[0].GroupVersionKind(), err)
	}
	return out, nil
}

func (w *HTTPWebhooks) convert(ctx context.Context, hook *apiextensionsv1.WebhookConversion, objects []*unstructured.Unstructured, apiVersion string) ([]*unstructured.Unstructured, error) {
	request, uid, err := newReview(hook, objects, apiVersion)
	if err != nil {
		return nil, err
	}
	answer, err := w.post(ctx, hook.ClientConfig, request)
	if err != nil {
		return nil, err
	}
	out, err := readReview(answer, uid, len(objects))
	if err != nil {
		return nil, err
	}
	for i, u := range out {
		if got := u.GetAPIVersion(); got != apiVersion {
			return nil, fmt.Errorf("it returned an object of apiVersion %s, %s was asked for", got, apiVersion)
		}
		if err := keepMetadata(objects[i], u); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// newReview is the body of a request.
func newReview(hook *apiextensionsv1.WebhookConversion, objects []*unstructured.Unstructured, apiVersion string) (body []byte, uid string, err error) {
	version := ""
	for _, v := range hook.ConversionReviewVersions {
		if v == "v1" || v == "v1beta1" {
			version = v
			break
		}
	}
	if version == "" {
		return nil, "", fmt.Errorf("it understands %v only, and this server v1 and v1beta1", hook.ConversionReviewVersions)
	}
	id := uuid.NewUUID()
	review := apiextensionsv1.ConversionReview{Request: &apiextensionsv1.ConversionRequest{UID: id, DesiredAPIVersion: apiVersion}}
	for _, u := range objects {
		raw, err := json.Marshal(u.Object)
		if err != nil {
			return nil, "", err
		}
		review.Request.Objects = append(review.Request.Objects, runtime.RawExtension{Raw: raw})
	}
	review.Kind, review.APIVersion = "ConversionReview", "apiextensions.k8s.io/"+version
	body, err = json.Marshal(review)
	return body, string(id), err
}

// readReview returns the objects of an answer.
func readReview(answer []byte, uid string, count int) ([]*unstructured.Unstructured, error) {
	var review apiextensionsv1.ConversionReview
	if err := json.Unmarshal(answer, &review); err != nil {
		return nil, fmt.Errorf("its answer is no ConversionReview: %w", err)
	}
	r := review.Response
	switch {
	case r == nil:
		return nil, errors.New("its answer has no response")
	case string(r.UID) != uid:
		return nil, fmt.Errorf("it answered request %q, not %q", r.UID, uid)
	case r.Result.Status != "Success":
		return nil, fmt.Errorf("it says: %s", r.Result.Message)
	case len(r.ConvertedObjects) != count:
		return nil, fmt.Errorf("it returned %d objects, expected %d", len(r.ConvertedObjects), count)
	}
	out := make([]*unstructured.Unstructured, count)
	for i := range out {
		u := &unstructured.Unstructured{}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(r.ConvertedObjects[i].Raw, &u.Object); err != nil || u.Object == nil {
			return nil, fmt.Errorf("object %d of what it returned is none: %w", i, err)
		}
		out[i] = u
	}
	return out, nil
}

// keepMetadata gives out the metadata of in, of which a webhook may change
// labels and annotations only.
func keepMetadata(in, out *unstructured.Unstructured) error {
	for _, c := range []struct {
		what     string
		was, got any
	}{
		{"kind", in.GetKind(), out.GetKind()}, {"name", in.GetName(), out.GetName()},
		{"namespace", in.GetNamespace(), out.GetNamespace()}, {"UID", in.GetUID(), out.GetUID()},
	} {
		if c.was != c.got {
			return fmt.Errorf("it changed the %s: %v is now %v", c.what, c.was, c.got)
		}
	}
	returned, ok := out.Object["metadata"].(map[string]any)
	if !ok {
		return errors.New("it returned an object without metadata")
	}
	kept, _ := runtime.DeepCopyJSONValue(in.Object["metadata"]).(map[string]any)
	for _, name := range []string{"labels", "annotations"} {
		delete(kept, name)
		if returned[name] == nil {
			continue
		}
		texts, found, err := unstructured.NestedStringMap(returned, name)
		if err != nil || !found {
			return fmt.Errorf("it returned metadata.%s that is no map of strings", name)
		}
		var errs field.ErrorList
		if name == "labels" {
			errs = metavalidation.ValidateLabels(texts, field.NewPath("metadata", name))
		} else {
			errs = validation.ValidateAnnotations(texts, field.NewPath("metadata", name))
		}
		if len(errs) > 0 {
			return errs.ToAggregate()
		}
		kept[name] = returned[name]
	}
	out.Object["metadata"] = kept
	return nil
}

// post sends a request and reads the answer, of which it takes no more than the
// bound.
func (w *HTTPWebhooks) post(ctx context.Context, config *apiextensionsv1.WebhookClientConfig, body []byte) ([]byte, error) {
	if config == nil {
		return nil, errors.New("the definition does not say where it is")
	}
	target := callout.Target{Authority: config.CABundle}
	if config.URL != nil {
		target.URL = *config.URL
	} else if s := config.Service; s != nil {
		target.Service = &callout.Service{Namespace: s.Namespace, Name: s.Name}
		if s.Path != nil {
			target.Service.Path = *s.Path
		}
		if s.Port != nil {
			target.Service.Port = *s.Port
		}
	}
	return w.Client.Post(ctx, target, body, maxWebhookBody)
}
