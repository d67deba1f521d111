// Package manifests says which objects a Hub needs. Each builder is a pure
// function from a Hub to one object, in the form that server-side apply takes:
// only the fields the operator has an opinion on. The package reads no cluster
// and writes none; the package controllers does both.
//
// Every object carries the labels of [Labels] and an owner reference to its Hub,
// so that deleting the Hub deletes it.
package manifests
