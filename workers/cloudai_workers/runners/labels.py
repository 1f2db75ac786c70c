"""The labels by which a container is known as a job's, across restarts of its node."""

TASK_LABEL = "cloudai.task"
ATTEMPT_LABEL = "cloudai.attempt"
NODE_LABEL = "cloudai.node"
NAMESPACE_LABEL = "cloudai.namespace"
