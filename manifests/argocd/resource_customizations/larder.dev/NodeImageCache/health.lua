-- How a node stands: whether it holds every image that it is to hold, from its agent's word.
local health = { status = "Progressing", message = "Waiting for the node's agent" }
local status = obj.status or {}

if status.observedGeneration == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the node's agent to take up the last change"
  return health
end
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.status == "True" then
      health.status = "Healthy"
    end
  end
end
return health
