// Package alerts holds the tests of what the chart gives Prometheus and Grafana:
// that the expressions parse, that they ask for metrics and labels which exist,
// and that each alert fires when it should and not otherwise. It is a module of
// its own, because Prometheus' is a large one.
package alerts
