-- How an ImageCache stands, from its conditions, as kstatus reads them.
local health = { status = "Progressing", message = "Waiting for the operator" }
local status = obj.status or {}

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

-- Not seen by the operator yet, or not since it was changed: what the conditions say is of the past.
if status.observedGeneration == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to take up the last change"
  return health
end

if conditions.Ready ~= nil then
  health.message = conditions.Ready.message
end
if holds("Reconciling") then
  -- Failures that are tried again are in the message.
  return health
end
if holds("Stalled") then
  -- Nothing more happens until somebody mends it.
  health.status = "Degraded"
  health.message = conditions.Stalled.message
elseif holds("Ready") then
  health.status = "Healthy"
elseif obj.spec ~= nil and obj.spec.paused == true then
  health.status = "Suspended"
end
return health
