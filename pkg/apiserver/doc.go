// Package apiserver is the HTTP face of the control plane: routes,
// authentication and authorization of each request, content negotiation,
// watch streams, discovery, and the handlers of subresources. What requests
// mean is package registry's; this package only translates.
//
// Contract: a Server is an http.Handler without a listener of its own. Every
// answer to a failed request is a metav1.Status. Objects, lists and watch
// events are made by copying the bytes that the cache keeps; they are decoded
// only for tables and views. Requests that come through Transport have the
// identity that the transport was made for, and pass authorization and
// admission like any other.
package apiserver
