package custom

import (
	"errors"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Webhooks converts objects by a definition's conversion webhook.
type Webhooks interface {
	// Convert returns object as the webhook converts it to apiVersion.
	Convert(hook *apiextensionsv1.WebhookConversion, object *unstructured.Unstructured, apiVersion string) (*unstructured.Unstructured, error)
}

// callWebhook converts u by the definition's webhook.
func (d *Definition) callWebhook(u *unstructured.Unstructured, target string) (*unstructured.Unstructured, error) {
	if d.src.Webhooks == nil {
		return nil, errors.New("this API server calls no conversion webhooks")
	}
	crd, err := d.src.Load()
	if err != nil {
		return nil, err
	}
	if crd.Spec.Conversion == nil || crd.Spec.Conversion.Webhook == nil {
		return nil, errors.New("the definition has no conversion webhook any more")
	}
	return d.src.Webhooks.Convert(crd.Spec.Conversion.Webhook, u, target)
}
