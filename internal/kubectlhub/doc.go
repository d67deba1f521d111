// Package kubectlhub holds the commands of kubectl-hub, the plugin of kubectl. What they do
// is package kubehub's; how they look and tell is hubctl's.
package kubectlhub
